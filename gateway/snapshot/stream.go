package snapshot

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/telemetry"
	"gatehouse.dev/gatehouse/gateway/upstream"
	"gatehouse.dev/gatehouse/routing"
)

// StreamRule is a compiled StreamRoute of a listener.
type StreamRule struct {
	Ref *exchange.RouteRef
	// Backends with a weight above 0, with the sum of the weights up to and including each.
	Backends    []StreamBackend
	TotalWeight uint64
	// Handles record the flows that no backend was chosen for.
	Handles *telemetry.FlowHandles

	// serves says that there is a backend to go to.
	serves bool
}

// StreamBackend is a compiled backend of a StreamRule.
type StreamBackend struct {
	Name    string
	Cluster *upstream.Cluster // nil when Invalid is set
	Invalid string
	Handles *telemetry.FlowHandles

	upTo uint64 // sum of the weights so far, this one included
}

// Draw returns the backend that a number below TotalWeight falls on.
func (r *StreamRule) Draw(number uint64) *StreamBackend {
	i := slices.IndexFunc(r.Backends, func(b StreamBackend) bool { return number < b.upTo })
	return &r.Backends[i]
}

// streamTable chooses among the routes of a TLS, TCP or UDP listener.
type streamTable struct {
	// hosts has each route under its own hostnames: the most specific of those that a server name belongs to wins, and of two routes with
	// the same one the first (Gateway API: GatewayRouteHostnameIntersectionPrecedence). A listener is asked only about names that it serves.
	//
	//	listener         routes, oldest first            for abc.example.com
	//	abc.example.com  *.example.com, abc.example.com  the second
	//	*.example.com    *.com, *.example.com            the second
	hosts routing.Hosts[*StreamRule]
	rules []*StreamRule
	// unrouted records the flows of the listener that no route takes.
	unrouted *telemetry.FlowHandles
}

// Unrouted records the flows of the listener that no route takes; nil for one that serves HTTP.
func (l *Listener) Unrouted() *telemetry.FlowHandles {
	if l.streams == nil {
		return nil
	}
	return l.streams.unrouted
}

// kindOf says what a listener's socket speaks.
func kindOf(l *config.Listener) downstream.Kind {
	switch l.Protocol {
	case config.TCP:
		return downstream.KindTCP
	case config.UDP:
		return downstream.KindUDP
	case config.TLS, config.HTTPS:
		return downstream.KindTLS
	default:
		return downstream.KindHTTP
	}
}

// passes reports whether a listener passes TLS on unopened.
func passes(l *config.Listener) bool { return l.Protocol == config.TLS && l.TLS == nil }

// hostnameOf is what a listener is found by on its socket. TCP and UDP tell no names.
func hostnameOf(l *config.Listener) string {
	if l.Protocol == config.TCP || l.Protocol == config.UDP {
		return ""
	}
	return l.Hostname
}

// giveWay leaves the UDP ports of HTTP/3 to the UDP listeners that ask for them.
func (s *Snapshot) giveWay() {
	for _, taker := range s.binds {
		if taker.socket.Kind != downstream.KindUDP {
			continue
		}
		for _, b := range s.binds {
			if b.socket.HTTP3 && overlap(b.socket, taker.socket) {
				b.socket.HTTP3 = false
			}
		}
	}
}

// overlap reports whether two sockets of one transport could not both be bound.
func overlap(a, b downstream.Bind) bool {
	everywhere := func(b downstream.Bind) bool { return !b.Addr.IsValid() || b.Addr.IsUnspecified() }
	return a.Port == b.Port && (a.Addr == b.Addr || everywhere(a) || everywhere(b))
}

// protoOf is what the flows of a listener are recorded as.
func protoOf(l *config.Listener) exchange.Proto {
	switch l.Protocol {
	case config.TCP:
		return exchange.TCP
	case config.UDP:
		return exchange.UDP
	default:
		return exchange.TLS
	}
}

// streams compiles the routes of a listener that serves no HTTP, or takes over the previous result where nothing changed.
func (b *build) streams(l *config.Listener) *streamTable {
	if before := b.Compiler.listeners[l.Name]; before != nil && before.streams != nil && before.Config.Protocol == l.Protocol &&
		before.Config.Hostname == l.Hostname && slices.Equal(before.Config.Streams, l.Streams) && b.upToDate(before.streams) {
		return before.streams
	}
	proto := protoOf(l)
	t := &streamTable{unrouted: b.telemetry.FlowHandles(proto, l.Name, nil, "")}
	for _, r := range l.Streams {
		hosts := []string{""}
		if proto == exchange.TLS {
			hosts = servedHosts(l.Hostname, r.Hostnames)
		}
		rule := b.streamRule(l, r)
		t.rules = append(t.rules, rule)
		for _, host := range hosts {
			if _, taken := t.hosts.Get(host); !taken {
				t.hosts.Set(host, rule)
			}
		}
	}
	return t
}

// upToDate reports whether the clusters that a table was compiled against are still the live ones.
func (b *build) upToDate(t *streamTable) bool {
	for _, rule := range t.rules {
		for _, backend := range rule.Backends {
			if backend.Cluster != nil && b.lease.Cluster(backend.Name) != backend.Cluster {
				return false
			}
		}
	}
	return true
}

func (b *build) streamRule(l *config.Listener, r *config.StreamRoute) *StreamRule {
	rule := &StreamRule{Ref: &exchange.RouteRef{Route: r.Origin.String(), Rule: r.Rule}}
	proto := protoOf(l)
	rule.Handles = b.telemetry.FlowHandles(proto, l.Name, rule.Ref, "")
	for _, backend := range r.Backends {
		if backend.Weight == 0 {
			continue
		}
		compiled := StreamBackend{Name: backend.Cluster, Invalid: backend.Invalid}
		if backend.Invalid == "" {
			compiled.Cluster = b.lease.Cluster(backend.Cluster)
			rule.serves = true
		}
		compiled.Handles = b.telemetry.FlowHandles(proto, l.Name, rule.Ref, backend.Cluster)
		rule.TotalWeight += uint64(backend.Weight)
		compiled.upTo = rule.TotalWeight
		rule.Backends = append(rule.Backends, compiled)
	}
	return rule
}

// sweepFlows lets telemetry forget the flows that the last Snapshot no longer has.
func (c *Compiler) sweepFlows() {
	c.telemetry.SweepFlows(func(yield func(*telemetry.FlowHandles) bool) {
		for _, l := range c.listeners {
			if l.streams != nil && !l.streams.each(yield) {
				return
			}
		}
	})
}

func (t *streamTable) each(yield func(*telemetry.FlowHandles) bool) bool {
	if !yield(t.unrouted) {
		return false
	}
	for _, rule := range t.rules {
		if !yield(rule.Handles) {
			return false
		}
		for i := range rule.Backends {
			if !yield(rule.Backends[i].Handles) {
				return false
			}
		}
	}
	return true
}

// Handshake decides what becomes of a TLS connection, over TCP or QUIC. One that no route could take is not opened: then it is the Engine's to
// refuse and to record, and the client gets no certificate.
func (s *Snapshot) Handshake(bindKey string, quic bool, hello *tls.ClientHelloInfo) (downstream.Handshake, error) {
	if b := s.binds[bindKey]; b != nil {
		name := exchange.CanonicalHost(hello.ServerName)
		if l, ok := b.listeners.Find(name); ok && l.Config.Protocol == config.TLS {
			if name != "" && (strings.IndexByte(name, '*') >= 0 || routing.ValidateHost(name) != nil) {
				return downstream.Handshake{}, fmt.Errorf("server name %.300q is none", name)
			}
			if quic {
				return downstream.Handshake{}, fmt.Errorf("listener %s serves nothing over QUIC", l.Config.Name)
			}
			decided := downstream.Handshake{Stream: true}
			if rule, ok := l.streams.hosts.Find(name); ok && rule.serves && l.tls != nil {
				decided.Config = l.tls.config(false)
			}
			return decided, nil
		}
	}
	conf, err := s.TLS(bindKey, quic, hello)
	return downstream.Handshake{Config: conf}, err
}

// FindStream decides where a flow goes. opened says that the gateway opened its TLS. The listener is nil when none serves it.
func (s *Snapshot) FindStream(peer *exchange.Peer, opened bool) (*Listener, *StreamRule, *exchange.Fault) {
	b := s.binds[peer.Bind]
	if b == nil {
		return nil, nil, exchange.NewFault(exchange.NoRoute, errors.New("the listeners of this address are gone"))
	}
	name := ""
	if peer.TLS != nil {
		name = peer.TLS.ServerName
	}
	l, ok := b.listeners.Find(name)
	if !ok || l.streams == nil {
		return nil, nil, exchange.NewFault(exchange.NoRoute, fmt.Errorf("no listener on %s serves server name %q", peer.Bind, name))
	}
	rule, ok := l.streams.hosts.Find(name)
	switch {
	case !ok:
		return l, nil, exchange.NewFault(exchange.NoRoute, fmt.Errorf("no route of listener %s serves server name %q", l.Config.Name, name))
	case opened != (l.tls != nil) && (opened || rule.serves):
		// The listener changed its mode after the handshake. A client's TLS must not reach who expects what is within, nor the other way.
		return l, rule, exchange.NewFault(exchange.Misdirected, fmt.Errorf("listener %s changed its TLS mode meanwhile", l.Config.Name))
	case opened:
		if fault := l.admitClient(peer.TLS); fault != nil {
			return l, rule, fault
		}
	}
	return l, rule, nil
}
