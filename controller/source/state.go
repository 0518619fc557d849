// Package source holds the Kubernetes objects that the gateway reads, wherever they come from: a folder of YAML now, informers in
// a cluster. It says what is there; what it means is for the translators.
package source

import (
	"maps"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/apis/v1alpha1"
	"gatehouse.dev/gatehouse/controller/problem"
)

// State is all objects at one moment. It is immutable: a change makes a new State that shares the unchanged objects, so that one
// object is unchanged exactly when its pointer is.
type State struct {
	GatewayClasses          Objects[*gatewayv1.GatewayClass]
	Gateways                Objects[*gatewayv1.Gateway]
	ListenerSets            Objects[*gatewayv1.ListenerSet]
	HTTPRoutes              Objects[*gatewayv1.HTTPRoute]
	GRPCRoutes              Objects[*gatewayv1.GRPCRoute]
	TLSRoutes               Objects[*gatewayv1.TLSRoute]
	TCPRoutes               Objects[*gatewayv1.TCPRoute]
	UDPRoutes               Objects[*gatewayv1.UDPRoute]
	ReferenceGrants         Objects[*gatewayv1beta1.ReferenceGrant]
	BackendTLSPolicies      Objects[*gatewayv1.BackendTLSPolicy]
	XBackends               Objects[*gatewayxv1alpha1.XBackend]
	XBackendTrafficPolicies Objects[*gatewayxv1alpha1.XBackendTrafficPolicy]
	XTelemetryPolicies      Objects[*gatewayxv1alpha1.XTelemetryPolicy]
	GatewayParameters       Objects[*v1alpha1.GatewayParameters]
	Services                Objects[*corev1.Service]
	EndpointSlices          Objects[*discoveryv1.EndpointSlice]
	Pods                    Objects[*corev1.Pod]
	Secrets                 Objects[*corev1.Secret]
	ConfigMaps              Objects[*corev1.ConfigMap]
	ClusterTrustBundles     Objects[*certificatesv1beta1.ClusterTrustBundle]
	Namespaces              Objects[*corev1.Namespace]

	// Revisions counts, by kind, how often objects of that kind changed; two States with the same number hold the same objects.
	Revisions map[string]uint64
	// Where says where an object stands, in standalone mode.
	Where map[Ref]Location
	// Problems are the files and objects that could not be taken in. They are in no collection above, unless the last good version
	// of the object is kept.
	Problems []problem.Problem
}

// Ref names an object.
type Ref struct {
	Kind, Namespace, Name string
}

// Location is a place in a file. Fields, when set, resolves a field path of the object to its own line.
type Location struct {
	File string
	Line int
	// Fields maps "spec.rules[0].matches[1]" to a line. It may be nil.
	Fields func(path string) int
}

// Problem returns p completed with the object's place; p.Field chooses the line where the location knows it.
func (s *State) Problem(p problem.Problem) problem.Problem {
	where, ok := s.Where[Ref{p.Kind, p.Namespace, p.Name}]
	if !ok {
		return p
	}
	p.File, p.Line = where.File, where.Line
	if where.Fields != nil && p.Field != "" {
		if line := where.Fields(p.Field); line > 0 {
			p.Line = line
		}
	}
	return p
}

// NewState returns an empty State with every collection made.
func NewState() *State {
	s := &State{Revisions: map[string]uint64{}, Where: map[Ref]Location{}}
	for _, c := range collections {
		c.renew(s, 0)
	}
	return s
}

// Clone returns a State with collections of its own over the same objects.
func (s *State) Clone() *State {
	out := *s
	for _, c := range collections {
		c.clone(&out)
	}
	out.Revisions, out.Where = maps.Clone(s.Revisions), maps.Clone(s.Where)
	out.Problems = append([]problem.Problem(nil), s.Problems...)
	return &out
}
