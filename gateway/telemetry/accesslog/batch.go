package accesslog

import (
	"sync"
	"time"
	"unsafe"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	// maxText bounds one string of a line; the rest is cut and marked.
	maxText = 4096
	// maxDetail bounds the text of a fault.
	maxDetail = 512
	cutMark   = "..."

	// minShard has room for a line of the longest strings.
	minShard = 64 << 10
	// keepText is the capacity that a text buffer keeps after a burst.
	keepText    = 256 << 10
	recordBytes = int(unsafe.Sizeof(record{}))
)

// The strings of a line that are copied into the text buffer, in the order they stand there.
const (
	textMethod = iota
	textAuthority
	textPath
	textClient
	textUserAgent
	textRequestID
	textTraceID
	textDetail
	textCount
)

// record is one line before it is encoded. Its strings live as long as the configuration or longer; those that do not are in the
// batch's text, the i-th ending at ends[i] and beginning where the one before ends.
type record struct {
	start    time.Time
	took     time.Duration
	bytesIn  int64
	bytesOut int64
	attempts int
	status   int
	proto    exchange.Proto
	route    *exchange.RouteRef
	bind     string
	cluster  string
	endpoint string
	flag     exchange.Kind
	ends     [textCount]uint32
}

func (r *record) endedAt() int64 { return r.start.UnixNano() + int64(r.took) }

// batch is lines in the order their exchanges ended.
type batch struct {
	records []record
	text    []byte
}

func (b *batch) size() int { return len(b.text) + len(b.records)*recordBytes }

// reset empties the batch for use again. A buffer that a burst made large is given back.
func (b *batch) reset() {
	if cap(b.text) > keepText && len(b.text) < cap(b.text)/4 {
		*b = batch{}
		return
	}
	clear(b.records)
	b.records, b.text = b.records[:0], b.text[:0]
}

// shard is where some of the exchanges leave their lines.
type shard struct {
	mu     sync.Mutex
	batch       // guarded by mu
	closed bool // guarded by mu
	_      [64]byte
}

// take exchanges the shard's batch for an empty one.
func (s *shard) take(empty batch, last bool) batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := s.batch
	s.batch = empty
	s.closed = last
	return full
}

// detailOf returns the cause of the exchange's fault, "" when there is none.
func detailOf(x *exchange.Exchange) string {
	if x.Fault == nil || x.Fault.Err == nil {
		return ""
	}
	return x.Fault.Err.Error()
}

// add copies an exchange.
func (b *batch) add(x *exchange.Exchange, e *Entry, detail string, query bool) {
	b.records = append(b.records, record{
		start: x.Start, took: e.Took, bytesIn: x.BytesIn, bytesOut: x.BytesOut, attempts: x.Attempts, status: x.Resp.Status,
		proto: x.Peer.Proto, route: x.Route, bind: x.Peer.Bind, cluster: x.Cluster, endpoint: x.Endpoint,
	})
	r := &b.records[len(b.records)-1]
	b.put(r, textMethod, x.Req.Method, maxText)
	b.put(r, textAuthority, e.Authority, maxText)
	b.put(r, textPath, pathOf(&x.Req, query), maxText)
	if x.Peer.Remote.IsValid() {
		b.text = x.Peer.Remote.AppendTo(b.text)
	}
	b.put(r, textClient, "", 0)
	b.put(r, textUserAgent, x.Req.Fields.Get(exchange.UserAgent), maxText)
	b.put(r, textRequestID, x.Req.Fields.Get(exchange.XRequestID), maxText)
	b.put(r, textTraceID, x.TraceID, maxText)
	if x.Fault != nil {
		r.flag = x.Fault.Kind
	}
	b.put(r, textDetail, detail, maxDetail)
}

func (b *batch) put(r *record, i int, s string, limit int) {
	if len(s) > limit {
		b.text = append(b.text, s[:limit]...)
		s = cutMark
	}
	b.text = append(b.text, s...)
	r.ends[i] = uint32(len(b.text))
}

// pathOf returns the path as the client sent it, before normalisation and rewriting: what was tried is what the log is read for.
func pathOf(h *exchange.Head, query bool) string {
	if query {
		return h.Target
	}
	for i := range len(h.Target) {
		if h.Target[i] == '?' {
			return h.Target[:i]
		}
	}
	return h.Target
}

// cursor walks over a batch that was taken.
type cursor struct {
	batch *batch
	text  string // the batch's text, copied once so that its parts can be handed out as strings
	next  int
	begin uint32 // where the next record's text begins
}

func (c *cursor) reset(b *batch) { *c = cursor{batch: b, text: string(b.text)} }

// earliest returns the cursor whose next record ended first, nil when none has one. There are eight cursors at most.
func earliest(cursors []cursor) (first *cursor) {
	for i := range cursors {
		c := &cursors[i]
		if c.next == len(c.batch.records) {
			continue
		}
		if first == nil || c.batch.records[c.next].endedAt() < first.batch.records[first.next].endedAt() {
			first = c
		}
	}
	return first
}

// advance returns the next record and its strings.
func (c *cursor) advance() (r *record, texts [textCount]string) {
	r = &c.batch.records[c.next]
	c.next++
	for i, end := range r.ends {
		texts[i] = c.text[c.begin:end]
		c.begin = end
	}
	return r, texts
}
