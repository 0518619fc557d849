package snapshot

import (
	"fmt"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/routing"
)

// Decision is why a request goes where it goes.
type Decision struct {
	// Socket is the address that the request arrives at.
	Socket string `json:"socket"`
	// Listener is the one that serves the request's host; nil when none does.
	Listener *config.Origin `json:"listener,omitempty"`
	// ListenerHostname is that listener's, "" for every host.
	ListenerHostname string `json:"listenerHostname,omitempty"`
	// ListenerFilters run before a route is chosen. What they would change is not taken into account.
	ListenerFilters []string `json:"listenerFilters,omitempty"`
	// Refused is why the request gets no route, nil when it gets one.
	Refused *Refusal `json:"refused,omitempty"`
	// Rule is what the request takes.
	Rule *RuleDecision `json:"rule,omitempty"`
	// Losers are the closest rules that it does not take.
	Losers []Loser `json:"losers,omitempty"`
}

// Refusal is the answer that the gateway gives by itself.
type Refusal struct {
	Kind   exchange.Kind `json:"kind"`
	Status int           `json:"status"`
	Detail string        `json:"detail,omitempty"`
}

// RuleDecision is the winning rule and what it does.
type RuleDecision struct {
	Route config.Origin `json:"route"`
	Rule  string        `json:"rule"`
	// Match says which of the rule's matches won, and with what.
	Match          string            `json:"match"`
	Filters        []string          `json:"filters,omitempty"`
	Backends       []BackendDecision `json:"backends,omitempty"`
	RequestTimeout string            `json:"requestTimeout,omitempty"`
	BackendTimeout string            `json:"backendTimeout,omitempty"`
	Retries        int               `json:"retries,omitempty"`
}

// BackendDecision is a backend with its share of the rule's requests.
type BackendDecision struct {
	Cluster string `json:"cluster,omitempty"`
	// Percent of the rule's requests.
	Percent   float64  `json:"percent"`
	Endpoints []string `json:"endpoints"`
	Filters   []string `json:"filters,omitempty"`
	// Invalid is the reason why its share is answered 500.
	Invalid string `json:"invalid,omitempty"`
}

// Loser is a rule that the request does not take.
type Loser struct {
	Route  config.Origin `json:"route"`
	Rule   string        `json:"rule"`
	Reason string        `json:"reason"`
	Detail string        `json:"detail"`
}

// Explain decides as Find does and says why, for a client whose certificate passes where one is asked for. most bounds the losers.
func (s *Snapshot) Explain(peer *exchange.Peer, head *exchange.Head, describe func(config.Policy) string, most int) *Decision {
	d := &Decision{Socket: peer.Bind}
	listener, fault := s.listener(peer, head)
	if fault != nil {
		d.Refused = NewRefusal(fault)
		return d
	}
	origin := listener.Config.Origin
	d.Listener, d.ListenerHostname = &origin, listener.Config.Hostname
	d.ListenerFilters = describeAll(listener.Config.Filters, describe)
	for _, v := range listener.table.Explain(head, most+1) {
		if v.Won {
			d.Rule = v.Value.decision(v, describe)
		} else if len(d.Losers) < most {
			d.Losers = append(d.Losers, Loser{Route: v.Value.Route.Origin, Rule: v.Value.Config.Name, Reason: v.Reason, Detail: v.Detail})
		}
	}
	if _, fault := listener.Find(head); fault != nil {
		d.Refused = NewRefusal(fault)
	}
	return d
}

// NewRefusal describes a Fault.
func NewRefusal(f *exchange.Fault) *Refusal {
	r := &Refusal{Kind: f.Kind, Status: f.Status}
	if f.Err != nil {
		r.Detail = f.Err.Error()
	}
	return r
}

func (r *Rule) decision(v routing.Verdict[*Rule], describe func(config.Policy) string) *RuleDecision {
	d := &RuleDecision{Route: r.Route.Origin, Rule: r.Config.Name, Match: v.Detail, Filters: describeAll(r.Config.Filters, describe)}
	if r.RequestTimeout > 0 {
		d.RequestTimeout = r.RequestTimeout.String()
	}
	if r.BackendTimeout > 0 {
		d.BackendTimeout = r.BackendTimeout.String()
	}
	if r.Retry != nil {
		d.Retries = r.Retry.Attempts
	}
	live := r.Backends
	for _, b := range r.Config.Backends {
		out := BackendDecision{Cluster: b.Cluster, Invalid: b.Invalid, Filters: describeAll(b.Filters, describe), Endpoints: []string{}}
		if b.Weight > 0 {
			out.Percent = 100 * float64(b.Weight) / float64(r.TotalWeight)
			if c := live[0].Cluster; c != nil {
				for _, e := range c.Endpoints() {
					out.Endpoints = append(out.Endpoints, e.String())
				}
			}
			live = live[1:] // Backends leaves those without weight out, in the same order
		}
		d.Backends = append(d.Backends, out)
	}
	return d
}

func describeAll(policies []config.Policy, describe func(config.Policy) string) []string {
	var out []string
	for _, p := range policies {
		if text := describe(p); text != "" {
			out = append(out, fmt.Sprintf("%s: %s", p.Kind, text))
		} else {
			out = append(out, p.Kind)
		}
	}
	return out
}

// BindFor returns the key of the socket that a client of HTTP reaches at this port, TLS or not; false when there is none. Of several on one
// port it prefers the one for all interfaces.
func (s *Snapshot) BindFor(port uint16, tls bool) (string, bool) {
	best, kind := "", downstream.KindHTTP
	if tls {
		kind = downstream.KindTLS
	}
	for key, b := range s.binds {
		if b.socket.Port == port && b.socket.Kind == kind && (best == "" || !b.socket.Addr.IsValid() || key < best) {
			best = key
			if !b.socket.Addr.IsValid() {
				break
			}
		}
	}
	return best, best != ""
}
