package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// Open sends by the clock: request i is due i/rate seconds after the start, and its latency counts from then, whether or not a connection
// was free to send it. A proxy that stalls for 10 ms at 20,000 requests/s thus makes 200 slow requests; a closed load, which waits with
// it, would count one for each of its connections and call the rest fast ("coordinated omission").
//
// Example with one connection and a request due each ms: the answer to the first takes 3.5 ms. The second and third, due at 1 and 2 ms, wait
// for the connection and leave at 3.5 and, say, 3.6 ms; their latencies are 2.6 and 1.7 ms, although the proxy took 0.1 ms each.
type Open struct {
	// Protocol is H1 or H2.
	Protocol       Protocol
	Conns, Streams int
	Requests       []Request
	// Share is the rate as a share of what a closed load with the same connections reaches just before. Fixed is a rate in its place.
	Share, Fixed float64
	// Changes is how long after a change of the proxy's configuration took effect the next one is made; 0 is never.
	Changes time.Duration
	// Changed is a path whose body is the number of the last change.
	Changed string
}

// Run implements Load.
func (l Open) Run(ctx context.Context, e *Env) (Result, error) {
	rate := l.Fixed
	if e.Rate > 0 {
		rate = e.Rate
	}
	if rate == 0 {
		found, err := l.saturate(ctx, e)
		if err != nil {
			return Result{}, fmt.Errorf("looking for the proxy's limit: %w", err)
		}
		rate = found * l.Share
	}
	// The pacer sleeps in the kernel; it gets a processor of Go's scheduler beside those of the readers.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1))
	o := &openRun{run: newRun(), interval: time.Duration(float64(time.Second) / rate)}
	defer o.run.stop()
	if err := l.connect(o, e); err != nil {
		return Result{}, err
	}
	o.pace(ctx, e.Warm)
	changed := l.change(ctx, e, o)
	e.Begin()
	o.run.phase.Store(measured)
	began := time.Now()
	o.pace(ctx, e.Measure)
	o.finish(ctx)
	took := time.Since(began)
	o.run.phase.Store(over)
	e.End()
	res := o.result(e.Measure)
	res.Rate = rate
	var err error
	if res.Changes, res.Applied, err = changed(); err != nil {
		res.Errors++
		res.FirstError = err.Error()
	}
	if err := ctx.Err(); err != nil {
		return res, err
	}
	if res.Requests == 0 {
		return res, fmt.Errorf("no request ended well in %v: %s", took.Round(time.Millisecond), orNothing(res.FirstError))
	}
	return res, nil
}

// saturate finds the most requests per second, with the same generators.
func (l Open) saturate(ctx context.Context, e *Env) (float64, error) {
	short := *e
	short.Warm, short.Measure = e.Warm, min(e.Measure, 2*time.Second)
	short.Begin, short.End = func() {}, func() {}
	res, err := Closed{Protocol: l.Protocol, Conns: l.Conns, Streams: l.Streams, Requests: l.Requests}.own(ctx, &short)
	if err != nil {
		return 0, err
	}
	return float64(res.Requests) / res.Seconds, nil
}

// slot can have one request under way.
type slot interface {
	// send sends a request that was due at the given time. How it ends is told to openRun.ended.
	send(due time.Time)
}

// openRun is an open load under way.
type openRun struct {
	run      *run
	interval time.Duration

	mu sync.Mutex
	// The rest is guarded by mu.
	free []slot
	// backlog are the times at which requests were due that found no free slot.
	backlog []time.Time
	tally   tally
	late    Hist
	busy    int
	drained *sync.Cond
}

// pace sends requests for d, by the clock.
func (o *openRun) pace(ctx context.Context, d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := time.Now()
	for i := 0; ; i++ {
		after := time.Duration(i) * o.interval
		if after >= d || ctx.Err() != nil {
			return
		}
		due := began.Add(after)
		now := time.Now()
		if wait := due.Sub(now); wait > 0 {
			pause(wait)
			now = time.Now()
		}
		o.due(due, now)
	}
}

func (o *openRun) due(due, now time.Time) {
	o.mu.Lock()
	if o.run.phase.Load() == measured {
		o.late.Add(now.Sub(due))
	}
	if len(o.free) == 0 {
		o.backlog = append(o.backlog, due)
		o.mu.Unlock()
		return
	}
	s := o.free[len(o.free)-1]
	o.free = o.free[:len(o.free)-1]
	o.busy++
	o.mu.Unlock()
	s.send(due)
}

// ended counts a request and gives its slot the longest waiting one.
func (o *openRun) ended(s slot, due time.Time, err error) {
	took := time.Since(due)
	o.mu.Lock()
	o.tally.ended(took, err)
	if len(o.backlog) == 0 {
		o.free = append(o.free, s)
		o.busy--
		if o.busy == 0 && o.drained != nil {
			o.drained.Signal()
		}
		o.mu.Unlock()
		return
	}
	due = o.backlog[0]
	o.backlog = o.backlog[1:]
	o.mu.Unlock()
	s.send(due)
}

// finish waits for answers that are still due, up to 2 s; what is left then has failed.
func (o *openRun) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drained = sync.NewCond(&o.mu)
	defer context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.drained.Broadcast()
	})()
	for o.busy > 0 && ctx.Err() == nil {
		o.drained.Wait()
	}
	for range o.busy + len(o.backlog) {
		o.tally.ended(0, fmt.Errorf("%d requests were not answered within 2 s of the end", o.busy+len(o.backlog)))
	}
}

func (o *openRun) result(d time.Duration) Result {
	o.mu.Lock()
	defer o.mu.Unlock()
	res := sum([]tally{o.tally}, d)
	res.Late = o.late.Quantile(0.99)
	return res
}

// connect opens the connections and makes their slots.
func (l Open) connect(o *openRun, e *Env) error {
	o.tally.run = o.run
	for i := range l.Conns {
		if l.Protocol == H2 {
			if err := l.connectH2(o, e); err != nil {
				return err
			}
			continue
		}
		conn, err := dial(e.Plain, "")
		if err != nil {
			return err
		}
		o.run.keep(conn)
		r := l.Requests[i%len(l.Requests)]
		s := &h1Slot{run: o, address: e.Plain, head: r.wire(e.Plain), c: newH1Conn(conn)}
		o.free = append(o.free, s)
		go s.read()
	}
	return nil
}

// h1Slot is a connection of an open load. Its reader waits for answers and for the connection's end.
type h1Slot struct {
	run     *openRun
	address string
	head    []byte

	mu sync.Mutex
	// The rest is guarded by mu, but the reader alone reads from c.
	c       *h1Conn
	due     time.Time
	pending bool
	again   bool
}

func (s *h1Slot) send(due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due, s.pending, s.again = due, true, false
	// Should the connection have ended, the reader meets that and sends again.
	_, _ = s.c.conn.Write(s.head)
}

// read takes answers. A connection that ends before any answer is opened again; a request that it carried is sent once more, as clients do
// where a server closed a connection between two requests (RFC 9110 9.2.2).
func (s *h1Slot) read() {
	c := s.c
	for {
		err := c.receive(nil)
		if err != nil {
			if c = s.reconnect(err); c == nil {
				return
			}
			continue
		}
		s.end(nil)
	}
}

// end tells how the request under way ended, if there is one.
func (s *h1Slot) end(err error) {
	s.mu.Lock()
	pending, due := s.pending, s.due
	s.pending = false
	s.mu.Unlock()
	if pending {
		s.run.ended(s, due, err)
	}
}

// reconnect opens the connection again, and sends again what was sent on the old one for the first time and got no answer. It tries until
// the load is over, which it reports by nil.
func (s *h1Slot) reconnect(cause error) *h1Conn {
	s.run.run.drop(s.c.conn)
	s.mu.Lock()
	repeats := s.pending && !s.again && errors.Is(cause, errClosed)
	s.mu.Unlock()
	if !repeats {
		s.end(cause)
	}
	for !s.run.run.over() {
		conn, err := dial(s.address, "")
		if err != nil {
			s.end(err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.run.run.keep(conn)
		c := newH1Conn(conn)
		s.mu.Lock()
		s.c = c
		if s.pending { // for the second time, or for the first while there was no connection
			s.again = repeats
			_, _ = conn.Write(s.head)
		}
		s.mu.Unlock()
		if repeats {
			s.run.repeated()
		}
		return c
	}
	return nil
}

// repeated counts a request that was sent again.
func (o *openRun) repeated() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.run.phase.Load() == measured {
		o.tally.reconnects++
	}
}

// connectH2 opens a connection with its streams' slots.
func (l Open) connectH2(o *openRun, e *Env) error {
	c, err := dialH2(e.TLS, false, h2Get, l.Requests[0].Path)
	if err != nil {
		return err
	}
	o.run.keep(c.conn)
	slots := make([]*h2OpenSlot, max(l.Streams, 1))
	c.done = func(s *h2Slot, err error) { o.ended(slots[s.index], s.began, err) }
	for i := range slots {
		slots[i] = &h2OpenSlot{run: o, slot: &h2Slot{index: i, conn: c}}
		o.free = append(o.free, slots[i])
	}
	go func() {
		err := c.read()
		c.mu.Lock()
		broken := c.streams
		c.streams = map[uint32]*h2Slot{}
		c.mu.Unlock()
		o.mu.Lock()
		defer o.mu.Unlock()
		for range broken {
			o.tally.ended(0, err)
			o.busy--
		}
	}()
	return nil
}

type h2OpenSlot struct {
	run  *openRun
	slot *h2Slot
}

func (s *h2OpenSlot) send(due time.Time) {
	// The connection's reader meets the same error.
	if s.slot.conn.start(s.slot, due) == nil {
		_ = s.slot.conn.flush()
	}
}

// change changes the configuration until the load is over. The function that it returns waits for the end of the last change, and returns
// how many there were and how long the median one took.
func (l Open) change(ctx context.Context, e *Env, o *openRun) func() (int, time.Duration, error) {
	if l.Changes == 0 {
		return func() (int, time.Duration, error) { return 0, 0, nil }
	}
	var took Hist
	var changes int
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for failed == nil && !o.run.over() {
			changes++
			began := time.Now()
			if failed = e.Change(changes); failed == nil {
				failed = l.tookEffect(ctx, e.Plain, strconv.Itoa(changes))
			}
			took.Add(time.Since(began))
			if pass(ctx, l.Changes) != nil {
				return
			}
		}
	}()
	return func() (int, time.Duration, error) {
		<-done
		if failed != nil {
			failed = fmt.Errorf("change %d: %w", changes, failed)
		}
		return changes, took.Quantile(0.5), failed
	}
}

// tookEffect asks for the path Changed until its body is want.
func (l Open) tookEffect(ctx context.Context, address, want string) error {
	const most, again = 10 * time.Second, 10 * time.Millisecond
	for began := time.Now(); ; {
		got, err := fetch(address, l.Requests[0], l.Changed)
		if err == nil && got == want {
			return nil
		}
		if time.Since(began) > most {
			return errors.Join(fmt.Errorf("it did not take effect in %v: %s is %q", most, l.Changed, got), err)
		}
		if err := pass(ctx, again); err != nil {
			return err
		}
	}
}

// fetch returns a small answer's body.
func fetch(address string, like Request, path string) (string, error) {
	conn, err := dial(address, "")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	like.Path = path
	c := newH1Conn(conn)
	if err := c.send(like.wire(address), 0, nil, nil); err != nil {
		return "", err
	}
	status, length, err := c.readHead()
	if err != nil {
		return "", err
	}
	if status != 200 || length < 0 || length > int64(len(c.buf)) {
		return "", fmt.Errorf("status %d with a body of %d bytes", status, length)
	}
	for int64(c.to-c.from) < length {
		if err := c.fill(); err != nil {
			return "", err
		}
	}
	return string(c.buf[c.from : c.from+int(length)]), nil
}
