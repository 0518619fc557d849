package gatewayapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// variant is how clusters are reached from one kind of listener, where that differs from the usual way:
//
//   - Through a Gateway with spec.tls.backend they are shown a client certificate. Gateways may share routes and, in standalone mode,
//     the process, but not each other's certificates; so each certificate makes clusters of its own.
//   - A TLS listener with mode Passthrough carries TLS that the gateway does not open, and must not wrap in TLS of its own. The policy that
//     asks for that TLS does not matter there, not even when it cannot be followed and closes the backend for everybody else.
//
// A route that is attached to such listeners gets a copy for each variant, in which the names of the clusters concerned are other ones:
//
//	Service/shop/app/443   ->   Service/shop/app/443/client/infra/edge-client
//
// As long as nobody uses either, no route and no cluster is looked at for it.
type variant struct {
	// certificate is the name of the client certificate, "" for none.
	certificate string
	passthrough bool
}

// variantRoute is a route's copy for a variant.
type variantRoute struct {
	// base and streams are what it was made of, names the clusters that are other ones.
	base  *config.Route
	from  []*config.StreamRoute
	names string

	config  *config.Route
	streams []*config.StreamRoute
}

// variantCluster is a cluster's copy for a variant.
type variantCluster struct {
	base, made *config.Cluster
	used       uint64
}

// variant is the listener's.
func (l *listener) variant() variant {
	v := variant{passthrough: l.config.Protocol == config.TLS && !l.terminates()}
	if l.gateway.client != nil {
		v.certificate = l.gateway.client.Name
	}
	return v
}

// differs reports whether a target's cluster is another one in the variant.
func (t *target) differs(v variant) bool {
	switch {
	case t.reason != "":
		return false
	case t.closed:
		return true
	}
	return t.cluster.TLS != nil && (v.passthrough || v.certificate != "" && t.cluster.TLS.ClientCertificate == "")
}

// nameIn is the name of the target's cluster in a variant, "" where it is closed.
func (t *target) nameIn(v variant) string {
	switch {
	case !t.differs(v):
		return t.cluster.Name
	case t.closed && !v.passthrough:
		return ""
	case v.passthrough:
		return t.cluster.Name + "/passthrough"
	}
	return t.cluster.Name + "/client/" + v.certificate
}

// useIn adds the target's cluster, as it is in a variant, to the Plan. It returns 1 when it was not there yet.
func (p *pass) useIn(t *target, v variant) (added int) {
	if t.closed && !v.passthrough {
		return 0
	}
	base := p.live(t)
	if t.reported != p.run {
		t.reported = p.run
		p.report(t.endpointProblems)
	}
	if !t.differs(v) {
		if t.used == p.run {
			return 0
		}
		t.used, t.kept = p.run, p.run
		p.b.Cluster(base)
		if t.certificate != nil {
			p.b.Certificate(t.certificate)
		}
		return 1
	}
	c := t.variants[v]
	if c == nil {
		c = &variantCluster{}
		if t.variants == nil {
			t.variants = make(map[variant]*variantCluster)
		}
		maps.DeleteFunc(t.variants, func(_ variant, old *variantCluster) bool { return old.used+1 < p.run })
		t.variants[v] = c
	}
	if c.used == p.run {
		return 0
	}
	c.used, t.kept = p.run, p.run
	if cert := p.view.clients[v.certificate]; cert != nil && !v.passthrough {
		p.b.Certificate(cert)
	}
	if c.base != base {
		made := *base
		made.Name = t.nameIn(v)
		made.TLS = nil
		if !v.passthrough {
			settings := *base.TLS
			settings.ClientCertificate = v.certificate
			made.TLS = &settings
		}
		c.base, c.made = base, &made
	}
	p.b.Cluster(c.made)
	return 1
}

// in returns the route as it is in a variant: itself where no cluster of it is another one there.
func (rt *route) in(v variant) (*config.Route, []*config.StreamRoute) {
	if v == (variant{}) && len(rt.streams) == 0 { // only streams have closed targets
		return rt.config, rt.streams
	}
	names, key := renames(rt.targets, v)
	if names == nil {
		return rt.config, rt.streams
	}
	made := rt.variants[v]
	if made == nil || made.base != rt.config || made.names != key || !slices.Equal(made.from, rt.streams) {
		made = &variantRoute{base: rt.config, from: slices.Clone(rt.streams), names: key}
		if rt.config != nil {
			made.config = renameRoute(rt.config, names)
		}
		for _, s := range rt.streams {
			copied := *s
			copied.Backends = renameBackends(s.Backends, names)
			made.streams = append(made.streams, &copied)
		}
		if rt.variants == nil {
			rt.variants = make(map[variant]*variantRoute)
		}
		rt.variants[v] = made
	}
	return made.config, made.streams
}

// forgetVariants drops the copies that the route has no more listeners for.
func (rt *route) forgetVariants() {
	if len(rt.variants) > len(rt.joined) {
		maps.DeleteFunc(rt.variants, func(v variant, _ *variantRoute) bool { return !slices.Contains(rt.joined, v) })
	}
}

// renames are the names of the clusters that are other ones in a variant, nil for none, and the same as text.
func renames(targets []*target, v variant) (names map[string]string, text string) {
	var list []string
	for _, t := range targets {
		if t.differs(v) {
			if names == nil {
				names = make(map[string]string)
			}
			names[t.cluster.Name] = t.nameIn(v)
			list = append(list, t.cluster.Name)
		}
	}
	slices.Sort(list)
	return names, strings.Join(list, " ")
}

// renameRoute returns a copy of the route whose rules lead to clusters of other names.
func renameRoute(r *config.Route, names map[string]string) *config.Route {
	out := *r
	out.Rules = make([]*config.Rule, 0, len(r.Rules))
	for _, rule := range r.Rules {
		copied := *rule
		copied.Filters = renamePolicies(rule.Filters, names)
		copied.Backends = renameBackends(rule.Backends, names)
		out.Rules = append(out.Rules, &copied)
	}
	return &out
}

func renameBackends(list []config.Backend, names map[string]string) []config.Backend {
	out := slices.Clone(list)
	for i := range out {
		if name, ok := names[out[i].Cluster]; ok {
			if out[i].Cluster = name; name == "" {
				out[i].Invalid = string(problem.InvalidBackend)
			}
		}
		out[i].Filters = renamePolicies(out[i].Filters, names)
	}
	return out
}

// renamePolicies renames the clusters in the settings of filters: the fields "cluster", at any depth, by which plan.Split finds them too.
func renamePolicies(list []config.Policy, names map[string]string) []config.Policy {
	out := list
	for i := range list {
		if !bytes.Contains(list[i].Payload, []byte(`"cluster"`)) {
			continue
		}
		read := json.NewDecoder(bytes.NewReader(list[i].Payload))
		read.UseNumber()
		var tree any
		if read.Decode(&tree) != nil || !renameTree(tree, names) {
			continue
		}
		payload, err := json.Marshal(tree)
		if err != nil {
			continue // what was decoded encodes
		}
		if &out[0] == &list[0] {
			out = slices.Clone(list)
		}
		out[i].Payload = payload
	}
	return out
}

func renameTree(tree any, names map[string]string) (changed bool) {
	switch node := tree.(type) {
	case []any:
		for _, item := range node {
			changed = renameTree(item, names) || changed
		}
	case map[string]any:
		for key, item := range node {
			name, ok := item.(string)
			if !ok || key != "cluster" {
				changed = renameTree(item, names) || changed
			} else if other, ok := names[name]; ok {
				node[key], changed = other, true
			}
		}
	}
	return changed
}
