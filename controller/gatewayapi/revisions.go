package gatewayapi

import (
	"cmp"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"gatehouse.dev/gatehouse/controller/source"
)

// kind is a kind of object that a translation reads.
type kind int

const (
	gatewayClasses kind = iota
	gateways
	httpRoutes
	referenceGrants
	xBackends
	services
	endpointSlices
	secrets
	configMaps
	namespaces
	kinds
)

// kindNames are the keys of State.Revisions.
var kindNames = [kinds]string{"GatewayClass", "Gateway", "HTTPRoute", "ReferenceGrant", "XBackend", "Service", "EndpointSlice", "Secret",
	"ConfigMap", "Namespace"}

// sizes counts the objects of each kind.
func sizes(st *source.State) [kinds]int {
	return [kinds]int{len(st.GatewayClasses), len(st.Gateways), len(st.HTTPRoutes), len(st.ReferenceGrants), len(st.XBackends),
		len(st.Services), len(st.EndpointSlices), len(st.Secrets), len(st.ConfigMaps), len(st.Namespaces)}
}

// revisions remembers State.Revisions of the State before, and how many objects there were.
type revisions struct {
	seen bool
	last [kinds]revision
}

type revision struct {
	number uint64
	size   int
}

// changes tells which kinds differ from the State before.
type changes [kinds]bool

// update compares st with the State before and remembers it. A State whose source counts no revisions for a kind that it holds is
// taken as changed.
func (r *revisions) update(st *source.State) (out changes) {
	for k, size := range sizes(st) {
		now := revision{st.Revisions[kindNames[k]], size}
		out[k] = !r.seen || now != r.last[k] || now.number == 0 && size > 0
		r.last[k] = now
	}
	r.seen = true
	return out
}

// any reports whether one of the kinds changed.
func (c *changes) any(list ...kind) bool {
	for _, k := range list {
		if c[k] {
			return true
		}
	}
	return false
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
