package gatewayapi

import (
	"cmp"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"gatehouse.dev/gatehouse/controller/source"
)

// kind is a kind of object that a translation reads, one of source.Kinds.
type kind string

const (
	gatewayClasses          kind = "GatewayClass"
	gateways                kind = "Gateway"
	listenerSets            kind = "ListenerSet"
	httpRoutes              kind = "HTTPRoute"
	grpcRoutes              kind = "GRPCRoute"
	tlsRoutes               kind = "TLSRoute"
	tcpRoutes               kind = "TCPRoute"
	udpRoutes               kind = "UDPRoute"
	referenceGrants         kind = "ReferenceGrant"
	backendTLSPolicies      kind = "BackendTLSPolicy"
	xBackends               kind = "XBackend"
	xBackendTrafficPolicies kind = "XBackendTrafficPolicy"
	xTelemetryPolicies      kind = "XTelemetryPolicy"
	gatewayParameters       kind = "GatewayParameters"
	services                kind = "Service"
	endpointSlices          kind = "EndpointSlice"
	pods                    kind = "Pod"
	secrets                 kind = "Secret"
	configMaps              kind = "ConfigMap"
	clusterTrustBundles     kind = "ClusterTrustBundle"
	namespaces              kind = "Namespace"
)

// revisions remembers State.Revisions of the State before, and how many objects there were.
type revisions map[kind]revision

type revision struct {
	number uint64
	size   int
}

// changes are the kinds that differ from the State before.
type changes map[kind]bool

// update compares st with the State before and remembers it. A State whose source counts no revisions for a kind that it holds is
// taken as changed.
func (r *revisions) update(st *source.State) changes {
	first := *r == nil
	if first {
		*r = make(revisions)
	}
	out := make(changes)
	for _, name := range source.Kinds() {
		k := kind(name)
		now := revision{st.Revisions[name], st.Size(name)}
		if first || now != (*r)[k] || now.number == 0 && now.size > 0 {
			out[k] = true
		}
		(*r)[k] = now
	}
	return out
}

// any reports whether one of the kinds changed.
func (c changes) any(list ...kind) bool {
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
