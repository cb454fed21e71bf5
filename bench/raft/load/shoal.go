// Shoal's bench server: websocket frames, each a flat msgpack array of requests [id, operation, payload, ...] or of
// answers [id, status, value, ...]. What workers ask while a frame is being written goes into the next one.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	opPut = 1
	opGet = 2
	// Bytes at the head of a write that the server fills in: who proposed it, under which number.
	reservedBytes = 8
	// Requests of one connection without an answer.
	pendingMax = 8192
)

type shoalTarget struct{ conns []*shoalConn }

type request struct {
	id      uint32
	op      byte
	payload []byte
}

type shoalConn struct {
	socket  *websocket.Conn
	asked   chan request
	over    chan struct{}
	mutex   sync.Mutex
	nextId  uint32
	waiting map[uint32]chan error
	failed  error
}

func dialShoal(endpoints []string, conns int) (target, error) {
	t := &shoalTarget{}
	dialer := websocket.Dialer{HandshakeTimeout: 5 * time.Second, WriteBufferSize: 256 * 1024, ReadBufferSize: 64 * 1024}
	for c := 0; c < conns; c++ {
		socket, _, err := dialer.Dial("ws://"+endpoints[c%len(endpoints)]+"/", nil)
		if err != nil {
			t.close()
			return nil, err
		}
		conn := &shoalConn{socket: socket, asked: make(chan request, pendingMax), over: make(chan struct{}), waiting: map[uint32]chan error{}}
		go conn.write()
		go conn.read()
		t.conns = append(t.conns, conn)
	}
	return t, nil
}

func (t *shoalTarget) put(ctx context.Context, worker int, key string, value []byte) error {
	payload := make([]byte, 0, reservedBytes+1+len(key)+len(value))
	payload = append(payload, make([]byte, reservedBytes)...)
	payload = append(payload, byte(len(key)))
	payload = append(payload, key...)
	payload = append(payload, value...)
	return t.conns[worker%len(t.conns)].ask(ctx, opPut, payload)
}

func (t *shoalTarget) get(ctx context.Context, worker int, key string) error {
	return t.conns[worker%len(t.conns)].ask(ctx, opGet, []byte(key))
}

func (t *shoalTarget) close() {
	for _, conn := range t.conns {
		conn.socket.Close()
	}
}

func (c *shoalConn) ask(ctx context.Context, op byte, payload []byte) error {
	answer := make(chan error, 1)
	c.mutex.Lock()
	if c.failed != nil {
		c.mutex.Unlock()
		return c.failed
	}
	c.nextId++
	id := c.nextId
	c.waiting[id] = answer
	c.mutex.Unlock()
	select {
	case c.asked <- request{id, op, payload}:
	case <-c.over:
	case <-ctx.Done():
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		c.mutex.Lock()
		delete(c.waiting, id)
		c.mutex.Unlock()
		return ctx.Err()
	}
}

func (c *shoalConn) write() {
	var batch []request
	var frame []byte
	for {
		batch = batch[:0]
		select {
		case first := <-c.asked:
			batch = append(batch, first)
		case <-c.over:
			return
		}
	more:
		for len(batch) < 1024 {
			select {
			case next := <-c.asked:
				batch = append(batch, next)
			default:
				break more
			}
		}
		frame = appendArray(frame[:0], 3*len(batch))
		for _, r := range batch {
			frame = append(frame, 0xce)
			frame = binary.BigEndian.AppendUint32(frame, r.id)
			frame = append(frame, r.op)
			frame = append(frame, 0xc5)
			frame = binary.BigEndian.AppendUint16(frame, uint16(len(r.payload)))
			frame = append(frame, r.payload...)
		}
		if err := c.socket.WriteMessage(websocket.BinaryMessage, frame); err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *shoalConn) read() {
	for {
		_, frame, err := c.socket.ReadMessage()
		if err == nil {
			err = c.answer(frame)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

var errRefused = errors.New("refused: no leader, or the outcome is not known")

func (c *shoalConn) answer(frame []byte) error {
	d := decoder{frame, nil}
	count := d.array()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for n := 0; n < count && d.err == nil; n += 3 {
		id := uint32(d.uint())
		status := d.uint()
		d.skipValue()
		waiter := c.waiting[id]
		delete(c.waiting, id)
		if waiter == nil {
			continue
		}
		if status == 0 {
			waiter <- nil
		} else {
			waiter <- errRefused
		}
	}
	return d.err
}

func (c *shoalConn) fail(err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.failed != nil {
		return
	}
	c.failed = err
	close(c.over)
	for id, waiter := range c.waiting {
		delete(c.waiting, id)
		waiter <- err
	}
	c.socket.Close()
}

func appendArray(to []byte, length int) []byte {
	return binary.BigEndian.AppendUint16(append(to, 0xdc), uint16(length))
}

// As much of msgpack as the answers use.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.rest) {
		if d.err == nil {
			d.err = fmt.Errorf("raft-load: a frame ends too soon")
		}
		return make([]byte, n)
	}
	taken := d.rest[:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) array() int {
	switch tag := d.take(1)[0]; {
	case tag&0xf0 == 0x90:
		return int(tag & 0x0f)
	case tag == 0xdc:
		return int(binary.BigEndian.Uint16(d.take(2)))
	case tag == 0xdd:
		return int(binary.BigEndian.Uint32(d.take(4)))
	default:
		d.err = fmt.Errorf("raft-load: 0x%x is no array", tag)
		return 0
	}
}

func (d *decoder) uint() uint64 {
	switch tag := d.take(1)[0]; {
	case tag < 0x80:
		return uint64(tag)
	case tag == 0xcc:
		return uint64(d.take(1)[0])
	case tag == 0xcd:
		return uint64(binary.BigEndian.Uint16(d.take(2)))
	case tag == 0xce:
		return uint64(binary.BigEndian.Uint32(d.take(4)))
	default:
		d.err = fmt.Errorf("raft-load: 0x%x is no unsigned number", tag)
		return 0
	}
}

func (d *decoder) skipValue() {
	switch tag := d.take(1)[0]; tag {
	case 0xc0:
	case 0xc4:
		d.take(int(d.take(1)[0]))
	case 0xc5:
		d.take(int(binary.BigEndian.Uint16(d.take(2))))
	case 0xc6:
		d.take(int(binary.BigEndian.Uint32(d.take(4))))
	default:
		d.err = fmt.Errorf("raft-load: 0x%x is no value", tag)
	}
}
