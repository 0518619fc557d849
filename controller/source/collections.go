package source

import (
	"fmt"
	"maps"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/apis/v1alpha1"
)

// Objects is the objects of one kind by namespace and name. Cluster-scoped objects have an empty namespace.
type Objects[T any] map[types.NamespacedName]T

// collection is what a State does with the objects of one kind.
type collection struct {
	kind string
	// renew gives the State an empty collection of its own, for about size objects, so that the one that other States share stays as it is.
	renew func(s *State, size int)
	clone func(s *State)
	// put adds an object. It returns false for one of another kind.
	put  func(s *State, key types.NamespacedName, object metav1.Object) bool
	size func(s *State) int
}

// collections is the table of the kinds that a State holds.
var collections = []*collection{
	of("GatewayClass", func(s *State) *Objects[*gatewayv1.GatewayClass] { return &s.GatewayClasses }),
	of("Gateway", func(s *State) *Objects[*gatewayv1.Gateway] { return &s.Gateways }),
	of("ListenerSet", func(s *State) *Objects[*gatewayv1.ListenerSet] { return &s.ListenerSets }),
	of("HTTPRoute", func(s *State) *Objects[*gatewayv1.HTTPRoute] { return &s.HTTPRoutes }),
	of("GRPCRoute", func(s *State) *Objects[*gatewayv1.GRPCRoute] { return &s.GRPCRoutes }),
	of("TLSRoute", func(s *State) *Objects[*gatewayv1.TLSRoute] { return &s.TLSRoutes }),
	of("TCPRoute", func(s *State) *Objects[*gatewayv1.TCPRoute] { return &s.TCPRoutes }),
	of("UDPRoute", func(s *State) *Objects[*gatewayv1.UDPRoute] { return &s.UDPRoutes }),
	of("ReferenceGrant", func(s *State) *Objects[*gatewayv1beta1.ReferenceGrant] { return &s.ReferenceGrants }),
	of("BackendTLSPolicy", func(s *State) *Objects[*gatewayv1.BackendTLSPolicy] { return &s.BackendTLSPolicies }),
	of("XBackend", func(s *State) *Objects[*gatewayxv1alpha1.XBackend] { return &s.XBackends }),
	of("XBackendTrafficPolicy", func(s *State) *Objects[*gatewayxv1alpha1.XBackendTrafficPolicy] { return &s.XBackendTrafficPolicies }),
	of("XTelemetryPolicy", func(s *State) *Objects[*gatewayxv1alpha1.XTelemetryPolicy] { return &s.XTelemetryPolicies }),
	of("GatewayParameters", func(s *State) *Objects[*v1alpha1.GatewayParameters] { return &s.GatewayParameters }),
	of("Service", func(s *State) *Objects[*corev1.Service] { return &s.Services }),
	of("EndpointSlice", func(s *State) *Objects[*discoveryv1.EndpointSlice] { return &s.EndpointSlices }),
	of("Pod", func(s *State) *Objects[*corev1.Pod] { return &s.Pods }),
	of("Secret", func(s *State) *Objects[*corev1.Secret] { return &s.Secrets }),
	of("ConfigMap", func(s *State) *Objects[*corev1.ConfigMap] { return &s.ConfigMaps }),
	of("ClusterTrustBundle", func(s *State) *Objects[*certificatesv1beta1.ClusterTrustBundle] { return &s.ClusterTrustBundles }),
	of("Namespace", func(s *State) *Objects[*corev1.Namespace] { return &s.Namespaces }),
}

func of[T metav1.Object](kind string, field func(*State) *Objects[T]) *collection {
	return &collection{
		kind:  kind,
		renew: func(s *State, size int) { *field(s) = make(Objects[T], size) },
		clone: func(s *State) { *field(s) = maps.Clone(*field(s)) },
		put: func(s *State, key types.NamespacedName, object metav1.Object) bool {
			o, ok := object.(T)
			if ok {
				(*field(s))[key] = o
			}
			return ok
		},
		size: func(s *State) int { return len(*field(s)) },
	}
}

// Kinds returns the kinds that a State holds. They are the keys of State.Revisions.
func Kinds() []string {
	kinds := make([]string, 0, len(collections))
	for _, c := range collections {
		kinds = append(kinds, c.kind)
	}
	return kinds
}

// Size returns how many objects of a kind the State holds, 0 for a kind that it does not know.
func (s *State) Size(kind string) int {
	if c := find(kind); c != nil {
		return c.size(s)
	}
	return 0
}

// Replace gives the State a collection of its own with exactly these objects, and counts the revision. It is for whoever makes a new State
// out of a copy of the last one. A kind that no State holds, or an object of another kind, is a mistake of the caller, which the error says.
func (s *State) Replace(kind string, objects []metav1.Object) error {
	c := find(kind)
	if c == nil {
		return fmt.Errorf("a state holds no %s", kind)
	}
	c.renew(s, len(objects))
	for _, o := range objects {
		if !c.put(s, types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, o) {
			return fmt.Errorf("%T is no %s", o, kind)
		}
	}
	s.Revisions[kind]++
	return nil
}

// find returns the collection of a kind, or nil.
func find(kind string) *collection {
	for _, c := range collections {
		if c.kind == kind {
			return c
		}
	}
	return nil
}
