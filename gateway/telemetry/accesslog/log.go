// Package accesslog writes one JSON line for each exchange and flow and never makes an exchange wait for it.
//
// In flow exchanges that just ended; out flow lines to stdout, a file or a writer. What an exchange leaves behind is copied, not
// encoded, on its goroutine: numbers into a record, strings (which are views that die with the exchange) into one growing text
// buffer. One goroutine takes the filled buffers away, encodes them and writes many lines at a time.
//
//	exchange ── Record ──> shard 0: records, text ─┐
//	exchange ── Record ──> shard 1: records, text ─┼─ every 20 ms ─> merge by end time ─> JSON lines ─> sink
//	exchange ── Record ──> shard n: records, text ─┘
//
// The lines are what slog's JSON handler would write, at a tenth of its cost; a test holds the one against the other.
//
// Shards keep processors from meeting at one lock. Their size is bounded in bytes: when the sink is slow or stuck, further lines are
// dropped and counted. The package knows nothing of metrics, traces or routes beyond their names.
package accesslog

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	// DefaultBuffer is how many bytes of lines wait for the writer at most.
	DefaultBuffer = 8 << 20

	// linger is how long the first line of a batch waits for company.
	linger    = 20 * time.Millisecond
	maxShards = 8
	// chunk is how many encoded bytes are written at once. In between the writer gives way: on one processor an exchange would wait for
	// the whole batch otherwise.
	chunk = 64 << 10
)

// Options are the settings of a Log.
type Options struct {
	// Path is "-" for stdout or a file to append to, made with mode 0640; unused when Writer is set.
	Path string
	// Writer gets the lines, many whole ones a call. It is not closed.
	Writer io.Writer
	// Query adds the query to the path. Queries carry tokens and personal data; the default leaves them out.
	Query bool
	// Buffer bounds the bytes of lines that wait for the writer; 0 means DefaultBuffer. As much again may be in the writer's hands.
	Buffer int
	// Logger gets write errors, once a minute at most; nil discards them.
	Logger *slog.Logger
}

// Log is an access log. Its methods are safe for concurrent use.
type Log struct {
	query  bool
	logger *slog.Logger
	shards []shard
	limit  int // bytes a shard may hold

	wake  chan struct{} // a shard is no longer empty, or there is a file to change to
	hurry chan struct{} // a shard is half full
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	lines  atomic.Uint64
	full   atomic.Uint64
	failed atomic.Uint64

	// What follows belongs to the writer goroutine.
	sink      *sink
	batches   []batch // what was taken from the shards, one each
	cursors   []cursor
	encoder   encoder
	encoded   []byte
	pending   uint64 // lines in encoded
	lastError time.Time
}

// Open starts a Log.
func Open(o Options) (*Log, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Buffer <= 0 {
		o.Buffer = DefaultBuffer
	}
	sink, err := openSink(o)
	if err != nil {
		return nil, err
	}
	n := min(runtime.GOMAXPROCS(0), maxShards)
	l := &Log{
		query: o.Query, logger: o.Logger,
		shards: make([]shard, n), limit: max(o.Buffer/n, minShard),
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		sink: sink, batches: make([]batch, n), cursors: make([]cursor, n),
	}
	go l.run()
	return l, nil
}

// Entry is what the exchange itself does not know.
type Entry struct {
	// Took is the time from the exchange's start to its end.
	Took time.Duration
	// Authority is the one the client sent; filters may have changed the exchange's.
	Authority string
}

// Record logs an exchange that is over. It copies what it needs, waits for nobody, and drops the line when the buffer is full.
func (l *Log) Record(x *exchange.Exchange, e *Entry) {
	s := l.shard()
	detail := detailOf(x.Fault) // before the lock: it runs code of the error's owner
	s.mu.Lock()
	size := s.size()
	ok := !s.closed && size < l.limit
	if ok {
		s.add(x, e, detail, l.query)
	}
	l.leave(s, size, ok)
}

// RecordFlow logs a flow that is over, as Record does an exchange.
func (l *Log) RecordFlow(f *exchange.Flow, took time.Duration) {
	s := l.shard()
	detail := detailOf(f.Fault)
	s.mu.Lock()
	size := s.size()
	ok := !s.closed && size < l.limit
	if ok {
		s.addFlow(f, took, detail)
	}
	l.leave(s, size, ok)
}

// shard returns one to leave a line in.
func (l *Log) shard() *shard {
	if n := len(l.shards); n > 1 {
		return &l.shards[rand.IntN(n)]
	}
	return &l.shards[0]
}

// leave unlocks a shard, which was of this size before, and wakes the writer where that is due.
func (l *Log) leave(s *shard, size int, ok bool) {
	first, half := size == 0, s.size() >= l.limit/2
	s.mu.Unlock()
	switch {
	case !ok:
		l.full.Add(1)
	case half:
		signal(l.hurry)
		signal(l.wake)
	case first:
		signal(l.wake)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Stats are counts since the start.
type Stats struct {
	// Written lines reached the sink.
	Written uint64
	// Full lines were dropped because the buffer was full or the log closed, Failed ones because the sink refused them.
	Full, Failed uint64
}

// Stats returns the counts.
func (l *Log) Stats() Stats {
	return Stats{Written: l.lines.Load(), Full: l.full.Load(), Failed: l.failed.Load()}
}

// Reopen opens the file anew, for log rotation: after it returned, the writer finishes the lines it is writing to the old file and
// goes on in the new one. On an error the old file stays in use. Without a file it does nothing.
func (l *Log) Reopen() error {
	if err := l.sink.reopen(); err != nil {
		return err
	}
	signal(l.wake)
	return nil
}

// Close writes what is buffered and ends the log. When the context ends first, the lines that the sink did not take are lost.
func (l *Log) Close(ctx context.Context) error {
	l.once.Do(func() { close(l.stop) })
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("access log: %s takes no lines, the buffered ones are lost: %w", l.sink.name, context.Cause(ctx))
	}
}

func (l *Log) run() {
	defer close(l.done)
	timer := time.NewTimer(linger)
	timer.Stop()
	for {
		select {
		case <-l.wake:
		case <-l.stop:
			l.finish()
			return
		}
		timer.Reset(linger)
		select {
		case <-timer.C:
		case <-l.hurry:
		case <-l.stop:
			l.finish()
			return
		}
		l.write(false)
	}
}

func (l *Log) finish() {
	l.write(true)
	l.sink.close()
}

// write takes what the shards hold and writes it.
func (l *Log) write(last bool) {
	l.sink.change()
	for i := range l.shards {
		l.batches[i] = l.shards[i].take(l.batches[i], last)
		l.cursors[i].reset(&l.batches[i])
	}
	for {
		c := earliest(l.cursors)
		if c == nil {
			break
		}
		l.encode(c)
		if len(l.encoded) >= chunk {
			l.flush()
			runtime.Gosched()
		}
	}
	l.flush()
	for i := range l.batches {
		l.batches[i].reset()
		l.cursors[i].text = ""
	}
}

// encode appends the cursor's next record as a line.
func (l *Log) encode(c *cursor) {
	r, text := c.advance()
	l.encoded = l.encoder.append(l.encoded, r, text)
	l.pending++
}

// flush hands the encoded lines to the sink.
func (l *Log) flush() {
	if l.pending == 0 {
		return
	}
	if err := l.sink.write(l.encoded); err != nil {
		l.failed.Add(l.pending)
		if now := time.Now(); now.Sub(l.lastError) >= time.Minute {
			l.lastError = now
			l.logger.Error("the access log cannot be written; its lines are dropped until it can", "sink", l.sink.name, "error", err)
		}
	} else {
		l.lines.Add(l.pending)
	}
	l.encoded = l.encoded[:0]
	l.pending = 0
}
