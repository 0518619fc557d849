package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// callee is a server that answers each request line by a script; it returns its address.
func callee(t *testing.T, answer func(line string, conn net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				line, err := r.ReadString('\n')
				for err == nil {
					var field string
					if field, err = r.ReadString('\n'); field == "\r\n" {
						break
					}
				}
				if err == nil {
					answer(strings.TrimSpace(line), conn)
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

func newCaller(t *testing.T, clusters ...*config.Cluster) *Engine {
	t.Helper()
	set, err := filters.NewSet()
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{Filters: set, Detached: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = e.Shutdown(ctx)
	})
	if _, err := e.Apply(t.Context(), &config.Config{Clusters: clusters}); err != nil {
		t.Fatal(err)
	}
	return e
}

func plainCluster(name string, addrs ...netip.AddrPort) *config.Cluster {
	return &config.Cluster{Name: name, Protocol: config.UpstreamHTTP1, Endpoints: addrs, LoadBalancing: config.RoundRobin}
}

func question(t *testing.T) *exchange.Head {
	t.Helper()
	head := &exchange.Head{Method: "GET", Scheme: "http", Authority: "a", Target: "/q"}
	if err := head.Normalize(); err != nil {
		t.Fatal(err)
	}
	return head
}

func (e *Engine) ask(life *exchange.Life, c *exchange.Call) *exchange.Fault {
	pinned := e.pin()
	defer pinned.Release()
	return e.call(pinned, life, c)
}

// TestCall: the answer is the caller's own, and an endpoint where nobody listens is followed by another.
func TestCall(t *testing.T) {
	good := callee(t, func(line string, conn net.Conn) {
		fmt.Fprintf(conn, "HTTP/1.1 202 OK\r\nX-Line: %s\r\nContent-Length: 5\r\n\r\nhello", line)
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := netip.MustParseAddrPort(ln.Addr().String())
	ln.Close()
	e := newCaller(t, plainCluster("c", closed, good))
	for range 4 {
		c := &exchange.Call{Cluster: "c", Head: question(t)}
		if fault := e.ask(&exchange.Life{}, c); fault != nil {
			t.Fatal(fault)
		}
		if line, _ := c.Answer.Fields.Lookup("x-line"); c.Answer.Status != 202 || string(c.AnswerBody) != "hello" || line != "GET /q HTTP/1.1" {
			t.Errorf("got %+v", c)
		}
	}
}

// TestCallFails: each way that a call ends without an answer.
func TestCallFails(t *testing.T) {
	reached := make(chan struct{}, 8)
	silent := callee(t, func(_ string, conn net.Conn) {
		reached <- struct{}{}
		_, _ = io.Copy(io.Discard, conn)
	})
	long := callee(t, func(_ string, conn net.Conn) {
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world")
	})
	short := callee(t, func(_ string, conn net.Conn) { fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello") })
	e := newCaller(t, plainCluster("empty"), plainCluster("long", long), plainCluster("short", short), plainCluster("silent", silent))
	tests := map[string]struct {
		call exchange.Call
		want exchange.Kind
	}{
		"no cluster":   {exchange.Call{Cluster: "nowhere"}, exchange.InvalidBackend},
		"no endpoint":  {exchange.Call{Cluster: "empty"}, exchange.NoEndpoints},
		"silence":      {exchange.Call{Cluster: "silent", Timeout: 30 * time.Millisecond}, exchange.UpstreamTimeout},
		"too long":     {exchange.Call{Cluster: "long", MaxAnswer: 10}, exchange.UpstreamProtocol},
		"cut short":    {exchange.Call{Cluster: "short"}, exchange.UpstreamReset},
		"long, in all": {exchange.Call{Cluster: "long", MaxAnswer: 11}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.call.Head = question(t)
			fault := e.ask(&exchange.Life{}, &tt.call)
			if fault == nil && tt.want != "" || fault != nil && fault.Kind != tt.want {
				t.Errorf("got %v, want %s", fault, tt.want)
			}
		})
	}
	for len(reached) > 0 {
		<-reached
	}
	// The exchange ends while its call waits.
	life, done := &exchange.Life{}, make(chan *exchange.Fault)
	go func() { done <- e.ask(life, &exchange.Call{Cluster: "silent", Head: question(t)}) }()
	<-reached
	gone := exchange.NewFault(exchange.ClientAborted, errors.New("gone"))
	life.End(gone)
	if fault := <-done; fault != gone {
		t.Errorf("got %v, want what ended the exchange", fault)
	}
}
