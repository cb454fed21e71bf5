// The load generator of script/bench raft: one program, one measurement, two protocols. etcd is spoken to through etcd's
// own client (clientv3 over gRPC), Shoal's bench server through websocket frames of msgpack. Prints one JSON line a run.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A cluster under load. Both calls return when the cluster has answered: a write is on a quorum's disks, a read is linearizable.
type target interface {
	put(ctx context.Context, worker int, key string, value []byte) error
	get(ctx context.Context, worker int, key string) error
	close()
}

type result struct {
	Target    string  `json:"target"`
	Mode      string  `json:"mode"`
	InFlight  int     `json:"inFlight"`
	Done      int     `json:"done"`
	Failed    int64   `json:"failed"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"perSecond"`
	P50Ms     float64 `json:"p50Ms"`
	P99Ms     float64 `json:"p99Ms"`
	MaxMs     float64 `json:"maxMs"`
	// CPU of this process: what the client itself cost.
	ClientCpuSeconds float64 `json:"clientCpuSeconds"`
}

func main() {
	name := flag.String("target", "", "etcd or shoal")
	endpoints := flag.String("endpoints", "", "host:port, comma separated")
	mode := flag.String("mode", "put", "put, get, fill or probe")
	inFlight := flag.Int("inflight", 1, "requests in flight")
	conns := flag.Int("conns", 1, "connections, over all endpoints")
	seconds := flag.Float64("seconds", 5, "how long, in seconds; put and get")
	count := flag.Int("count", 0, "how many writes; fill")
	keys := flag.Int("keys", 10000, "different keys")
	bytes := flag.Int("bytes", 256, "bytes of a value")
	seed := flag.Int64("seed", 1, "seed of the keys' order")
	everyMs := flag.Int("every", 5, "probe: a write to each endpoint every so many milliseconds")
	flag.Parse()
	list := strings.Split(*endpoints, ",")
	value := make([]byte, *bytes)
	rand.New(rand.NewSource(*seed)).Read(value)
	if *mode == "probe" {
		probe(*name, list, value, time.Duration(*everyMs)*time.Millisecond)
		return
	}
	cluster, err := dial(*name, list, *conns)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer cluster.close()
	run := load{cluster: cluster, keys: *keys, value: value, read: *mode == "get", seed: *seed}
	limit := time.Duration(*seconds * float64(time.Second))
	if *mode == "fill" {
		run.count = int64(*count)
		limit = 10 * time.Minute
	}
	r := run.run(*inFlight, limit)
	r.Target, r.Mode = *name, *mode
	line, _ := json.Marshal(r)
	fmt.Println(string(line))
}

func dial(name string, endpoints []string, conns int) (target, error) {
	switch name {
	case "etcd":
		return dialEtcd(endpoints, conns)
	case "shoal":
		return dialShoal(endpoints, conns)
	}
	return nil, fmt.Errorf("raft-load: -target %q is neither etcd nor shoal", name)
}

// A closed loop: so many workers, each with one request under way.
type load struct {
	cluster target
	keys    int
	value   []byte
	read    bool
	seed    int64
	// 0: until the time is over.
	count int64
}

func (l *load) run(inFlight int, limit time.Duration) result {
	taken := make([][]time.Duration, inFlight)
	var failed, started int64
	var workers sync.WaitGroup
	cpu := cpuSeconds()
	begin := time.Now()
	end := begin.Add(limit)
	ctx, cancel := context.WithDeadline(context.Background(), end.Add(10*time.Second))
	defer cancel()
	for w := 0; w < inFlight; w++ {
		workers.Add(1)
		go func(w int) {
			defer workers.Done()
			random := rand.New(rand.NewSource(l.seed*1000 + int64(w)))
			value := append([]byte(nil), l.value...)
			for time.Now().Before(end) {
				if l.count > 0 && atomic.AddInt64(&started, 1) > l.count {
					return
				}
				key := fmt.Sprintf("key-%08d", random.Intn(l.keys))
				// Each write differs, so that nobody can save it by finding it unchanged.
				random.Read(value[:8])
				at := time.Now()
				var err error
				if l.read {
					err = l.cluster.get(ctx, w, key)
				} else {
					err = l.cluster.put(ctx, w, key, value)
				}
				if err != nil {
					if atomic.AddInt64(&failed, 1) == 1 {
						fmt.Fprintln(os.Stderr, "raft-load: first failure:", err)
					}
					time.Sleep(5 * time.Millisecond)
					continue
				}
				taken[w] = append(taken[w], time.Since(at))
			}
		}(w)
	}
	workers.Wait()
	took := time.Since(begin).Seconds()
	var all []time.Duration
	for _, mine := range taken {
		all = append(all, mine...)
	}
	sort.Slice(all, func(a, b int) bool { return all[a] < all[b] })
	r := result{InFlight: inFlight, Done: len(all), Failed: failed, Seconds: took, ClientCpuSeconds: cpuSeconds() - cpu}
	if len(all) > 0 {
		r.PerSecond = float64(len(all)) / took
		r.P50Ms = ms(all[len(all)/2])
		r.P99Ms = ms(all[len(all)*99/100])
		r.MaxMs = ms(all[len(all)-1])
	}
	return r
}

// Every few milliseconds one write to each endpoint, whether the one before was answered or not. Each answer is one
// line: when it was sent and when it was answered, in microseconds since the epoch. Ends when standard input does.
func probe(name string, endpoints []string, value []byte, every time.Duration) {
	var out sync.Mutex
	writer := bufio.NewWriter(os.Stdout)
	ctx, cancel := context.WithCancel(context.Background())
	for _, endpoint := range endpoints {
		go func(endpoint string) {
			var cluster target
			// 400 writes without an answer at 5 ms are two seconds: an endpoint that is down holds no more.
			slots := make(chan bool, 400)
			for n := 0; ctx.Err() == nil; n++ {
				time.Sleep(every)
				if cluster == nil {
					dialled, err := dial(name, []string{endpoint}, 1)
					if err != nil {
						continue
					}
					cluster = dialled
				}
				select {
				case slots <- true:
				default:
					continue
				}
				go func(n int) {
					defer func() { <-slots }()
					limited, done := context.WithTimeout(ctx, 2*time.Second)
					defer done()
					sent := time.Now().UnixMicro()
					if cluster.put(limited, 0, fmt.Sprintf("probe-%d", n%100), value) != nil {
						return
					}
					out.Lock()
					fmt.Fprintf(writer, "%d %d %s\n", sent, time.Now().UnixMicro(), endpoint)
					writer.Flush()
					out.Unlock()
				}(n)
			}
		}(endpoint)
	}
	bufio.NewReader(os.Stdin).ReadString(0)
	cancel()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
