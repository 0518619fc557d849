// Package snapshot compiles a configuration into the immutable tables that the Engine runs on: sockets, hostnames, routes, filter
// chains, backends and TLS settings. It opens no socket and sends nothing.
//
// A Snapshot is pinned by each exchange for as long as it lasts (Acquire, Release). What the snapshot leases, its clusters, is given
// back after the last exchange that uses it.
package snapshot

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/telemetry"
	"gatehouse.dev/gatehouse/gateway/upstream"
	"gatehouse.dev/gatehouse/routing"
)

// Snapshot is one compiled configuration. It is immutable but for its reference count.
type Snapshot struct {
	// Config is what it was compiled from.
	Config *config.Config

	binds map[string]*bind
	lease *upstream.Lease // nil for the empty snapshot
	refs  atomic.Int64    // the Engine's own and one for each exchange

	tracers []*telemetry.Tracer       // of the listeners
	letGo   func([]*telemetry.Tracer) // takes tracers back
}

// bind is the listeners of one socket.
type bind struct {
	socket    downstream.Bind
	listeners routing.Hosts[*Listener]
}

// Listener is a compiled listener.
type Listener struct {
	Config *config.Listener
	// Chain runs before a rule is chosen.
	Chain filters.Chain
	// Tracer traces the listener's exchanges; nil where they are traced as all are.
	Tracer *telemetry.Tracer
	table  *routing.Table[*Rule]
	tls    *listenerTLS // nil for plaintext, and for TLS that is not opened
	// streams is nil for one that serves HTTP; table is nil for the others.
	streams *streamTable
}

// Rule is a compiled rule of a route.
type Rule struct {
	Ref    *exchange.RouteRef
	Route  *config.Route
	Config *config.Rule
	Chain  filters.Chain
	// Backends with a weight above 0, with the sum of the weights up to and including each.
	Backends    []Backend
	TotalWeight uint64
	// RequestTimeout, BackendTimeout and Retry are Config's.
	RequestTimeout time.Duration
	BackendTimeout time.Duration
	Retry          *config.Retry
	// Session keeps clients on one backend; nil when the rule says nothing about that.
	Session *upstream.Session
	// Handles record the exchanges that no backend was chosen for.
	Handles *telemetry.Handles
}

// Backend is a compiled backend of a rule.
type Backend struct {
	Name    string
	Cluster *upstream.Cluster // nil when Invalid is set
	Chain   filters.Chain
	Invalid string
	Handles *telemetry.Handles

	upTo uint64 // sum of the weights so far, this one included
}

// Empty returns a snapshot that serves nothing.
func Empty() *Snapshot {
	s := &Snapshot{Config: &config.Config{}}
	s.refs.Store(1)
	return s
}

// Acquire takes a reference. It returns false when the last one is gone already.
func (s *Snapshot) Acquire() bool {
	for {
		n := s.refs.Load()
		if n == 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release gives a reference back; after the last, the snapshot's clusters are given back too.
func (s *Snapshot) Release() {
	if s.refs.Add(-1) != 0 {
		return
	}
	if s.lease != nil {
		s.lease.Release()
	}
	if len(s.tracers) > 0 {
		s.letGo(s.tracers)
	}
}

// Cluster returns a live cluster by name, nil when there is none.
func (s *Snapshot) Cluster(name string) *upstream.Cluster {
	if s.lease == nil {
		return nil
	}
	return s.lease.Cluster(name)
}

// Sockets returns what to keep open, sorted.
func (s *Snapshot) Sockets() []downstream.Bind {
	out := make([]downstream.Bind, 0, len(s.binds))
	for _, b := range s.binds {
		out = append(out, b.socket)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key() < out[j].Key() })
	return out
}

// Draw returns the backend that a number below TotalWeight falls on.
func (r *Rule) Draw(number uint64) *Backend {
	i, _ := slices.BinarySearchFunc(r.Backends, number, func(b Backend, n uint64) int {
		if b.upTo <= n {
			return -1
		}
		return 1
	})
	return &r.Backends[i]
}

// Find decides where a request goes. The head was normalised.
func (s *Snapshot) Find(peer *exchange.Peer, head *exchange.Head) (*Rule, *exchange.Fault) {
	listener, fault := s.Listener(peer, head)
	if fault != nil {
		return nil, fault
	}
	return listener.Find(head)
}

// Listener decides which listener serves a request, and whether it lets the client in.
func (s *Snapshot) Listener(peer *exchange.Peer, head *exchange.Head) (*Listener, *exchange.Fault) {
	listener, fault := s.listener(peer, head)
	if fault != nil {
		return nil, fault
	}
	if peer.TLS != nil {
		if fault := listener.admitClient(peer.TLS); fault != nil {
			return nil, fault
		}
	}
	return listener, nil
}

// Find chooses the rule for a request to the listener.
func (l *Listener) Find(head *exchange.Head) (*Rule, *exchange.Fault) {
	rule, ok := l.table.Find(head)
	if !ok {
		return nil, exchange.NewFault(exchange.NoRoute, fmt.Errorf("no rule on listener %s matches", l.Config.Name))
	}
	return rule, nil
}

// listener returns the one listener that serves the request's host on its socket: the most specific, so that listeners are isolated
// from each other. On TLS it must also be the one that the handshake chose by SNI; otherwise the request came over a connection that
// was made for another name (Gateway API Listener.hostname, RFC 9110 15.5.20).
func (s *Snapshot) listener(peer *exchange.Peer, head *exchange.Head) (*Listener, *exchange.Fault) {
	b := s.binds[peer.Bind]
	if b == nil {
		return nil, exchange.NewFault(exchange.NoRoute, errors.New("the listeners of this address are gone"))
	}
	host := head.Host()
	byHost, ok := b.listeners.Find(host)
	if !ok {
		return nil, exchange.NewFault(exchange.NoRoute, fmt.Errorf("no listener on %s serves host %q", peer.Bind, host))
	}
	if peer.TLS != nil {
		if bySNI, ok := b.listeners.Find(peer.TLS.ServerName); !ok || bySNI != byHost {
			return nil, exchange.NewFault(exchange.Misdirected, fmt.Errorf("host %q on a connection made for %q", host, peer.TLS.ServerName))
		}
	}
	if byHost.streams != nil {
		return nil, exchange.NewFault(exchange.NoRoute, fmt.Errorf("listener %s serves no HTTP", byHost.Config.Name))
	}
	return byHost, nil
}

// admitClient holds the client of a TLS connection against the listener's rules. Where there are none nobody is known.
func (l *Listener) admitClient(info *exchange.TLSInfo) *exchange.Fault {
	if l.tls != nil && l.tls.clients != nil {
		return l.tls.clients.admit(info)
	}
	if rules, _ := info.Verdict(); rules != 0 {
		info.SetVerdict(0, false)
	}
	return nil
}

// TLS chooses the settings for a handshake, over TCP or QUIC.
func (s *Snapshot) TLS(bindKey string, quic bool, hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if b := s.binds[bindKey]; b != nil {
		name := exchange.CanonicalHost(hello.ServerName)
		if l, ok := b.listeners.Find(name); ok && l.tls != nil {
			return l.tls.config(quic), nil
		}
	}
	return nil, fmt.Errorf("no listener on %s serves server name %q", bindKey, hello.ServerName)
}
