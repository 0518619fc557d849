package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Idle opens connections, sends one request on each, and lets them stand. The result is what each costs the proxy in memory.
type Idle struct {
	Conns int
	TLS   bool
}

// idleWorkers open connections at a time: enough to be quick, few enough not to measure a crowd.
const idleWorkers = 8

// Run implements Load. Memory is read before the first and, when Env.Measure has passed, with all of them open; then one in a hundred sends
// another request, to see that the proxy still has them.
func (l Idle) Run(ctx context.Context, e *Env) (Result, error) {
	address, alpn := e.Plain, ""
	if l.TLS {
		address, alpn = e.TLS, "http/1.1"
	}
	head := Request{Path: "/b/130"}.wire(address)
	request := func(c *h1Conn) error {
		_ = c.conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err := c.send(head, 0, nil, nil); err != nil {
			return err
		}
		return c.receive(nil)
	}
	r := newRun()
	defer r.stop()
	open := func(n int) ([]*h1Conn, error) {
		conns, failed := make([]*h1Conn, n), make([]error, idleWorkers)
		var all sync.WaitGroup
		for w := range idleWorkers {
			all.Go(func() {
				for i := w; i < n && ctx.Err() == nil && failed[w] == nil; i += idleWorkers {
					conn, err := dial(address, alpn)
					if err == nil {
						r.keep(conn)
						conns[i] = &h1Conn{conn: conn, buf: make([]byte, 2<<10)}
						err = request(conns[i])
					}
					if err != nil {
						failed[w] = fmt.Errorf("connection %d of %d: %w", i+1, n, err)
					}
				}
			})
		}
		all.Wait()
		return conns, errors.Join(append(failed, ctx.Err())...)
	}
	// What the proxy sets up for its first connections is not theirs.
	first, err := open(2 * idleWorkers)
	if err != nil {
		return Result{}, err
	}
	if err := pass(ctx, e.Warm); err != nil {
		return Result{}, err
	}
	before, err := e.Memory()
	if err != nil {
		return Result{}, err
	}
	began := time.Now()
	conns, err := open(l.Conns)
	if err != nil {
		return Result{}, err
	}
	e.Begin()
	if err := pass(ctx, e.Measure); err != nil {
		return Result{}, err
	}
	after, err := e.Memory()
	e.End()
	if err != nil {
		return Result{}, err
	}
	res := Result{Tool: "own", Seconds: time.Since(began).Seconds(), PerConnection: float64(after-before) / float64(l.Conns)}
	for i, c := range append(first, conns...) {
		if i%100 != 0 {
			continue
		}
		if err := request(c); err != nil {
			res.Errors++
			res.FirstError = fmt.Sprintf("an idle connection: %v", err)
		} else {
			res.Requests++
		}
	}
	return res, nil
}
