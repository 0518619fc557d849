// Package load sends a proxy the traffic of a benchmark and counts what comes back. In: addresses and a plan, which says how long to warm
// up and how long to measure. Out: requests, bytes, errors and latencies of the measured part. It must not know which proxy it loads.
//
// Three kinds of load:
//
//   - Closed: each connection or stream sends its next request when the answer to the last one is whole. Finds the most that the proxy can do.
//     Run by wrk or h2load where they fit and are installed, else by the generators here.
//   - Open: requests leave by the clock, whether or not answers come. Finds the latency that users see at a given rate.
//   - Handshakes and Idle: new connections, and connections that only stand there.
package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Load is one way to load a proxy.
type Load interface {
	// Run loads the proxy and returns what the measured part gave. An error says that there is no measurement; requests that failed are
	// in the result.
	Run(ctx context.Context, e *Env) (Result, error)
}

// Env is what a load runs against and with.
type Env struct {
	// Plain and TLS are the proxy's addresses; HTTP/3 is on the UDP port of TLS.
	Plain, TLS string
	// Dir is a folder for the tools' files.
	Dir string
	// Warm is how long to load before measuring, Measure how long to measure.
	Warm, Measure time.Duration
	// Wrk and H2load are the paths of the tools; where empty, the generators of this package do their work.
	Wrk, H2load string
	// Begin and End are called at the edges of the measured part.
	Begin, End func()
	// Memory returns the proxy's resident memory in bytes.
	Memory func() (int64, error)
	// Change gives the proxy the next version of its configuration.
	Change func(version int) error
	// Rate, where not 0, is the rate of an open load in requests per second in place of the one that the load would find.
	Rate float64
}

// Result is what the measured part gave.
type Result struct {
	// Tool says what sent the requests.
	Tool string
	// Seconds is how long the part lasted that Requests were counted in.
	Seconds float64
	// Requests ended well, Errors did not: no or a broken answer, or a status other than 200.
	Requests, Errors int64
	// Reconnects counts requests that were sent again because their connection was closed before any answer.
	Reconnects int64
	// Bytes are those of bodies, both ways.
	Bytes int64
	// P50, P99 and P999 are percentiles of the latency; 0 where none was taken.
	P50, P99, P999 time.Duration
	// Rate is what an open load offered, in requests per second.
	Rate float64
	// Late is the 99th percentile of how late an open load sent its requests through its own fault.
	Late time.Duration
	// PerConnection is the memory of an idle connection in bytes.
	PerConnection float64
	// Changes counts configuration changes, Applied is how long the median one took to be served.
	Changes int
	Applied time.Duration
	// FirstError is what went wrong first.
	FirstError string
}

// The phases of a run.
const (
	warming int32 = iota
	measured
	over
)

// run is one load under way: its phase, and the connections to close when it is over.
type run struct {
	phase atomic.Int32

	mu    sync.Mutex
	conns map[closer]struct{} // guarded by mu; nil once over
}

type closer interface{ Close() error }

func newRun() *run { return &run{conns: map[closer]struct{}{}} }

// keep registers a connection to be closed at the end; it closes it at once if that was reached.
func (r *run) keep(c closer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil {
		_ = c.Close()
		return
	}
	r.conns[c] = struct{}{}
}

// drop closes a connection before the end.
func (r *run) drop(c closer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	_ = c.Close()
}

// stop ends the run: whoever waits on a connection gets an error, which no longer counts.
func (r *run) stop() {
	r.phase.Store(over)
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

func (r *run) over() bool { return r.phase.Load() == over }

// drive walks through the phases and returns the length of the measured one.
func (r *run) drive(ctx context.Context, e *Env) (time.Duration, error) {
	defer r.stop()
	if err := pass(ctx, e.Warm); err != nil {
		return 0, err
	}
	e.Begin()
	began := time.Now()
	r.phase.Store(measured)
	err := pass(ctx, e.Measure)
	r.phase.Store(over)
	took := time.Since(began)
	e.End()
	return took, err
}

// pass lets time go by.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// tally is what one worker counted. Only that worker touches it until the run is over.
type tally struct {
	run              *run
	requests, errors int64
	reconnects       int64
	bytes            int64
	hist             Hist
	first            error
	// failures counts in every phase, so that a proxy which answers nothing well is noticed before it is measured.
	failures int
}

// ended counts one request. took is its latency.
func (t *tally) ended(took time.Duration, err error) {
	if err != nil {
		if t.run.over() {
			return // cut off by the end
		}
		t.failures++
		if t.first == nil {
			t.first = err
		}
	}
	if t.run.phase.Load() != measured {
		return
	}
	if err != nil {
		t.errors++
		return
	}
	t.requests++
	t.hist.Add(took)
}

// carried counts body bytes.
func (t *tally) carried(n int) {
	if t.run.phase.Load() == measured {
		t.bytes += int64(n)
	}
}

// sum adds up the workers.
func sum(tallies []tally, took time.Duration) Result {
	res := Result{Tool: "own", Seconds: took.Seconds()}
	var hist Hist
	for i := range tallies {
		t := &tallies[i]
		res.Requests += t.requests
		res.Errors += t.errors
		res.Reconnects += t.reconnects
		res.Bytes += t.bytes
		hist.Merge(&t.hist)
		if t.first != nil && res.FirstError == "" {
			res.FirstError = t.first.Error()
		}
	}
	res.percentiles(&hist)
	return res
}

func (res *Result) percentiles(h *Hist) {
	res.P50, res.P99, res.P999 = h.Quantile(0.5), h.Quantile(0.99), h.Quantile(0.999)
}

// workers runs n workers through the phases. A worker returns when the run is over or it cannot go on.
func (r *run) workers(ctx context.Context, e *Env, n int, work func(i int, t *tally)) (Result, error) {
	tallies := make([]tally, n)
	var all sync.WaitGroup
	for i := range n {
		tallies[i].run = r
		all.Go(func() { work(i, &tallies[i]) })
	}
	took, err := r.drive(ctx, e)
	all.Wait()
	if err != nil {
		return Result{}, err
	}
	res := sum(tallies, took)
	if res.Requests == 0 && res.Bytes == 0 {
		return res, fmt.Errorf("no request ended well: %s", orNothing(res.FirstError))
	}
	return res, nil
}

func orNothing(text string) string {
	if text == "" {
		return "nothing was answered"
	}
	return text
}

// mostFailures is how many failures in a row a worker takes before it gives up: a proxy that is gone would be asked without end.
const mostFailures = 1000

// dial opens a connection, with TLS where alpn names a protocol.
func dial(address, alpn string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil || alpn == "" {
		return conn, err
	}
	secure := tls.Client(conn, clientTLS(address, alpn))
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := secure.Handshake(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	if got := secure.ConnectionState().NegotiatedProtocol; got != alpn && (got != "" || alpn != "http/1.1") {
		_ = conn.Close()
		return nil, fmt.Errorf("the proxy speaks %q where %q was asked for", got, alpn)
	}
	return secure, nil
}

// clientTLS is the same for every proxy: TLS 1.3 and X25519, the group that every build knows. The cipher is the proxy's choice and set in
// its configuration.
func clientTLS(address, alpn string) *tls.Config {
	host, _, _ := net.SplitHostPort(address)
	return &tls.Config{
		ServerName:       host,
		NextProtos:       []string{alpn},
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519},
		// The certificate was made for this run, a line earlier. That the proxy holds its key is checked all the same.
		InsecureSkipVerify: true,
	}
}
