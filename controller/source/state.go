// Package source holds the Kubernetes objects that the gateway reads, wherever they come from: a folder of YAML now, informers in
// a cluster. It says what is there; what it means is for the translators.
package source

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/problem"
)

// Objects is the objects of one kind by namespace and name. Cluster-scoped objects have an empty namespace.
type Objects[T any] map[types.NamespacedName]T

// State is all objects at one moment. It is immutable: a change makes a new State that shares the unchanged objects, so that one
// object is unchanged exactly when its pointer is.
type State struct {
	GatewayClasses  Objects[*gatewayv1.GatewayClass]
	Gateways        Objects[*gatewayv1.Gateway]
	HTTPRoutes      Objects[*gatewayv1.HTTPRoute]
	ReferenceGrants Objects[*gatewayv1beta1.ReferenceGrant]
	XBackends       Objects[*gatewayxv1alpha1.XBackend]
	Services        Objects[*corev1.Service]
	EndpointSlices  Objects[*discoveryv1.EndpointSlice]
	Secrets         Objects[*corev1.Secret]
	ConfigMaps      Objects[*corev1.ConfigMap]
	Namespaces      Objects[*corev1.Namespace]

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
	return &State{
		GatewayClasses:  Objects[*gatewayv1.GatewayClass]{},
		Gateways:        Objects[*gatewayv1.Gateway]{},
		HTTPRoutes:      Objects[*gatewayv1.HTTPRoute]{},
		ReferenceGrants: Objects[*gatewayv1beta1.ReferenceGrant]{},
		XBackends:       Objects[*gatewayxv1alpha1.XBackend]{},
		Services:        Objects[*corev1.Service]{},
		EndpointSlices:  Objects[*discoveryv1.EndpointSlice]{},
		Secrets:         Objects[*corev1.Secret]{},
		ConfigMaps:      Objects[*corev1.ConfigMap]{},
		Namespaces:      Objects[*corev1.Namespace]{},
		Revisions:       map[string]uint64{},
		Where:           map[Ref]Location{},
	}
}

// Clone returns a State with collections of its own over the same objects.
func (s *State) Clone() *State {
	return &State{
		GatewayClasses:  maps.Clone(s.GatewayClasses),
		Gateways:        maps.Clone(s.Gateways),
		HTTPRoutes:      maps.Clone(s.HTTPRoutes),
		ReferenceGrants: maps.Clone(s.ReferenceGrants),
		XBackends:       maps.Clone(s.XBackends),
		Services:        maps.Clone(s.Services),
		EndpointSlices:  maps.Clone(s.EndpointSlices),
		Secrets:         maps.Clone(s.Secrets),
		ConfigMaps:      maps.Clone(s.ConfigMaps),
		Namespaces:      maps.Clone(s.Namespaces),
		Revisions:       maps.Clone(s.Revisions),
		Where:           maps.Clone(s.Where),
		Problems:        append([]problem.Problem(nil), s.Problems...),
	}
}
