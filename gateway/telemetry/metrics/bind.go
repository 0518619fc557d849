package metrics

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	maxBinds  = 1024
	protocols = exchange.Protos
)

// Bind counts what comes in by one socket, by protocol. Its methods are safe for concurrent use and do not allocate.
type Bind struct {
	name   string
	protos [protocols]bindProto
}

type bindProto struct {
	connections atomic.Int64
	opened      atomic.Uint64
	// What is active is what started and has not ended: an exchange adds to each once.
	started, ended atomic.Uint64
}

func (p *bindProto) active() float64 {
	ended := p.ended.Load() // first: nothing ends before it starts
	return float64(int64(p.started.Load() - ended))
}

func (b *Bind) of(p exchange.Proto) *bindProto {
	if int(p) >= protocols {
		p = exchange.ProtoUnknown
	}
	return &b.protos[p]
}

// Connections adds to the open client connections: +1 for one accepted, -1 for one closed, both under the same protocol.
func (b *Bind) Connections(p exchange.Proto, delta int) {
	of := b.of(p)
	of.connections.Add(int64(delta))
	if delta > 0 {
		of.opened.Add(uint64(delta))
	}
}

// Begin counts an exchange as active until End.
func (b *Bind) Begin(p exchange.Proto) { b.of(p).started.Add(1) }

// End ends what Begin began.
func (b *Bind) End(p exchange.Proto) { b.of(p).ended.Add(1) }

// binds is read by every request and grows when a socket is opened: readers take an immutable map.
type binds struct {
	other  *Bind
	mu     sync.Mutex // serialises writers of byName
	byName atomic.Pointer[map[string]*Bind]

	connections, opened, active *prometheus.Desc
}

func newBinds() *binds {
	b := &binds{
		other:       &Bind{name: Other},
		connections: describe("downstream_connections", "Open client connections.", "bind", "protocol"),
		opened:      describe("downstream_connections_total", "Client connections accepted.", "bind", "protocol"),
		active:      describe("downstream_requests_active", "Requests received that have not ended.", "bind", "protocol"),
	}
	b.byName.Store(&map[string]*Bind{})
	return b
}

// Bind returns the counters of a socket, by its key in the snapshot.
func (s *Set) Bind(name string) *Bind {
	bs := s.binds
	if b := (*bs.byName.Load())[name]; b != nil {
		return b
	}
	bs.mu.Lock()
	defer bs.mu.Unlock()
	old := *bs.byName.Load()
	if b := old[name]; b != nil {
		return b
	}
	if len(old) >= maxBinds {
		return bs.other
	}
	next := maps.Clone(old)
	name = strings.Clone(name)
	b := &Bind{name: clean(name)}
	next[name] = b
	bs.byName.Store(&next)
	return b
}

// RemoveBind ends the series of a socket that was closed for good.
func (s *Set) RemoveBind(name string) {
	bs := s.binds
	bs.mu.Lock()
	defer bs.mu.Unlock()
	next := maps.Clone(*bs.byName.Load())
	delete(next, name)
	bs.byName.Store(&next)
}

// Describe implements prometheus.Collector.
func (bs *binds) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{bs.connections, bs.opened, bs.active} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A protocol shows once something came in by it.
func (bs *binds) Collect(ch chan<- prometheus.Metric) {
	bs.collect(ch, bs.other)
	for _, b := range *bs.byName.Load() {
		bs.collect(ch, b)
	}
}

func (bs *binds) collect(ch chan<- prometheus.Metric, b *Bind) {
	for i := range b.protos {
		p, proto := &b.protos[i], exchange.Proto(i).String()
		if opened := p.opened.Load(); opened > 0 {
			ch <- gauge(bs.connections, float64(p.connections.Load()), b.name, proto)
			ch <- counter(bs.opened, opened, b.name, proto)
		}
		if p.started.Load() > 0 {
			ch <- gauge(bs.active, p.active(), b.name, proto)
		}
	}
}
