package source

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// renew gives the kind an empty collection of its own, so that the one that other States share stays as it is.
func (s *State) renew(kind string) {
	switch kind {
	case "GatewayClass":
		s.GatewayClasses = Objects[*gatewayv1.GatewayClass]{}
	case "Gateway":
		s.Gateways = Objects[*gatewayv1.Gateway]{}
	case "HTTPRoute":
		s.HTTPRoutes = Objects[*gatewayv1.HTTPRoute]{}
	case "ReferenceGrant":
		s.ReferenceGrants = Objects[*gatewayv1beta1.ReferenceGrant]{}
	case "XBackend":
		s.XBackends = Objects[*gatewayxv1alpha1.XBackend]{}
	case "Service":
		s.Services = Objects[*corev1.Service]{}
	case "EndpointSlice":
		s.EndpointSlices = Objects[*discoveryv1.EndpointSlice]{}
	case "Secret":
		s.Secrets = Objects[*corev1.Secret]{}
	case "ConfigMap":
		s.ConfigMaps = Objects[*corev1.ConfigMap]{}
	case "Namespace":
		s.Namespaces = Objects[*corev1.Namespace]{}
	}
}

// put adds the object to the collection of its kind.
func (s *State) put(object metav1.Object) {
	name := types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}
	switch o := object.(type) {
	case *gatewayv1.GatewayClass:
		s.GatewayClasses[name] = o
	case *gatewayv1.Gateway:
		s.Gateways[name] = o
	case *gatewayv1.HTTPRoute:
		s.HTTPRoutes[name] = o
	case *gatewayv1beta1.ReferenceGrant:
		s.ReferenceGrants[name] = o
	case *gatewayxv1alpha1.XBackend:
		s.XBackends[name] = o
	case *corev1.Service:
		s.Services[name] = o
	case *discoveryv1.EndpointSlice:
		s.EndpointSlices[name] = o
	case *corev1.Secret:
		s.Secrets[name] = o
	case *corev1.ConfigMap:
		s.ConfigMaps[name] = o
	case *corev1.Namespace:
		s.Namespaces[name] = o
	}
}
