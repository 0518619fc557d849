package plan

import (
	"bytes"
	"encoding/json"
	"slices"

	"gatehouse.dev/gatehouse/gateway/config"
)

// Split returns what each Gateway's proxies get: its listeners, the clusters and certificates that these reach, and nothing else, so that
// a proxy holds no private key of another Gateway. The key is "namespace/name". Every Gateway of the list has an entry, and listeners of
// other Gateways are left out. What did not change since the previous Split (nil at first) is the same pointer.
//
// What a listener reaches, for the Gateway shop/edge:
//
//	listener shop/edge/https -> TLS.Certificates -> certificate shop/tls
//	                         -> Routes, Streams  -> Backends -> cluster Service/shop/app/80 -> TLS.ClientCertificate -> certificate shop/client
//	                                             -> Filters  -> the cluster that the settings name
//	                         -> Filters, Tracing -> likewise
func Split(c *config.Config, gateways []Gateway, previous map[string]*config.Config) map[string]*config.Config {
	byGateway := make(map[string][]*config.Listener, len(gateways))
	for _, l := range c.Listeners {
		byGateway[l.Gateway] = append(byGateway[l.Gateway], l)
	}
	clusters := positions(c.Clusters, func(c *config.Cluster) string { return c.Name })
	certificates := positions(c.Certificates, func(c *config.Certificate) string { return c.Name })
	out := make(map[string]*config.Config, len(gateways))
	for i := range gateways {
		key := gateways[i].Key()
		if out[key] != nil {
			continue
		}
		r := reach{clusters: make(map[string]bool), certificates: make(map[string]bool), routes: make(map[*config.Route]bool)}
		for _, l := range byGateway[key] {
			r.listener(l)
		}
		made := &config.Config{Listeners: byGateway[key], Clusters: named(c.Clusters, clusters, r.clusters)}
		for _, cluster := range made.Clusters {
			if cluster.TLS != nil && cluster.TLS.ClientCertificate != "" {
				r.certificates[cluster.TLS.ClientCertificate] = true
			}
		}
		made.Certificates = named(c.Certificates, certificates, r.certificates)
		if old := previous[key]; old != nil && sameConfig(old, made) {
			made = old
		}
		out[key] = made
	}
	return out
}

// positions says where in a list each name stands.
func positions[T any](list []*T, name func(*T) string) map[string]int {
	at := make(map[string]int, len(list))
	for i, item := range list {
		at[name(item)] = i
	}
	return at
}

// named returns the items of these names, in the order of the list. It costs what is returned, not what is not, so that a thousand Gateways
// of a few clusters each do not go through all clusters a thousand times.
func named[T any](list []*T, at map[string]int, names map[string]bool) []*T {
	found := make([]int, 0, len(names))
	for name := range names {
		if i, ok := at[name]; ok {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return nil
	}
	slices.Sort(found)
	out := make([]*T, 0, len(found))
	for _, i := range found {
		out = append(out, list[i])
	}
	return out
}

// sameConfig compares by identity.
func sameConfig(a, b *config.Config) bool {
	return slices.Equal(a.Listeners, b.Listeners) && slices.Equal(a.Clusters, b.Clusters) && slices.Equal(a.Certificates, b.Certificates)
}

// reach collects the names that listeners lead to.
type reach struct {
	clusters, certificates map[string]bool
	// routes are those looked at: one may be attached to many listeners.
	routes map[*config.Route]bool
}

func (r *reach) listener(l *config.Listener) {
	if l.TLS != nil {
		for _, name := range l.TLS.Certificates {
			r.certificates[name] = true
		}
	}
	if l.Tracing != nil && l.Tracing.Cluster != "" {
		r.clusters[l.Tracing.Cluster] = true
	}
	r.policies(l.Filters)
	for _, route := range l.Routes {
		if r.routes[route] {
			continue
		}
		r.routes[route] = true
		for _, rule := range route.Rules {
			r.policies(rule.Filters)
			r.backends(rule.Backends)
		}
	}
	for _, stream := range l.Streams {
		r.backends(stream.Backends)
	}
}

func (r *reach) backends(list []config.Backend) {
	for i := range list {
		if list[i].Cluster != "" {
			r.clusters[list[i].Cluster] = true
		}
		r.policies(list[i].Filters)
	}
}

// policies looks for clusters in the settings of filters. It knows no filter: whoever sends requests somewhere names the cluster in a
// field "cluster" of its settings, at any depth. A cluster too many, because some field of that name means another thing, does no harm
// beyond its connections; so each string there counts.
func (r *reach) policies(list []config.Policy) {
	for i := range list {
		payload := list[i].Payload
		if !bytes.Contains(payload, []byte(`"cluster"`)) {
			continue
		}
		var tree any
		if json.Unmarshal(payload, &tree) == nil {
			r.tree(tree)
		}
	}
}

func (r *reach) tree(tree any) {
	switch node := tree.(type) {
	case []any:
		for _, item := range node {
			r.tree(item)
		}
	case map[string]any:
		for key, item := range node {
			if name, ok := item.(string); ok && key == "cluster" {
				r.clusters[name] = true
			} else {
				r.tree(item)
			}
		}
	}
}
