// etcd, through the client that its own project ships.
package main

import (
	"context"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.uber.org/zap"
)

type etcdTarget struct{ clients []*clientv3.Client }

func dialEtcd(endpoints []string, conns int) (target, error) {
	t := &etcdTarget{}
	// A killed member is the point of some runs: no word about each request that it did not answer.
	quiet := zap.NewProductionConfig()
	quiet.Level = zap.NewAtomicLevelAt(zap.FatalLevel)
	for c := 0; c < conns; c++ {
		// One endpoint a client: a request goes where it was meant to, and not wherever the balancer sends it.
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   []string{endpoints[c%len(endpoints)]},
			DialTimeout: 5 * time.Second,
			LogConfig:   &quiet,
		})
		if err != nil {
			t.close()
			return nil, err
		}
		t.clients = append(t.clients, client)
	}
	return t, nil
}

func (t *etcdTarget) put(ctx context.Context, worker int, key string, value []byte) error {
	_, err := t.clients[worker%len(t.clients)].Put(ctx, key, string(value))
	return err
}

// A Get without options is linearizable.
func (t *etcdTarget) get(ctx context.Context, worker int, key string) error {
	_, err := t.clients[worker%len(t.clients)].Get(ctx, key)
	return err
}

func (t *etcdTarget) close() {
	for _, client := range t.clients {
		client.Close()
	}
}
