package gatewayapi

import (
	"cmp"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"gatehouse.dev/gatehouse/controller/source"
)

// revisions remembers State.Revisions of the State before, and how many objects there were.
type revisions map[string]revision

type revision struct {
	number uint64
	size   int
}

// changes are the kinds that differ from the State before.
type changes map[string]bool

// sizes returns the kinds that a translation reads, with the size of their collection.
func sizes(st *source.State) map[string]int {
	return map[string]int{
		"GatewayClass":   len(st.GatewayClasses),
		"Gateway":        len(st.Gateways),
		"HTTPRoute":      len(st.HTTPRoutes),
		"ReferenceGrant": len(st.ReferenceGrants),
		"XBackend":       len(st.XBackends),
		"Service":        len(st.Services),
		"EndpointSlice":  len(st.EndpointSlices),
		"Secret":         len(st.Secrets),
		"ConfigMap":      len(st.ConfigMaps),
		"Namespace":      len(st.Namespaces),
	}
}

// update compares st with the State before and remembers it. A State whose source counts no revisions for a kind that it holds is
// taken as changed.
func (r *revisions) update(st *source.State) changes {
	first := *r == nil
	if first {
		*r = make(revisions)
	}
	out := make(changes)
	for kind, size := range sizes(st) {
		now := revision{st.Revisions[kind], size}
		out[kind] = first || now != (*r)[kind] || now.number == 0 && size > 0
		(*r)[kind] = now
	}
	return out
}

// any reports whether one of the kinds changed.
func (c changes) any(kinds ...string) bool {
	for _, kind := range kinds {
		if c[kind] {
			return true
		}
	}
	return false
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
