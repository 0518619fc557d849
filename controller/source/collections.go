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

// renew gives the kind an empty collection of its own, for about size objects, so that the one that other States share stays as it is.
func (s *State) renew(kind string, size int) {
	switch kind {
	case "GatewayClass":
		s.GatewayClasses = make(Objects[*gatewayv1.GatewayClass], size)
	case "Gateway":
		s.Gateways = make(Objects[*gatewayv1.Gateway], size)
	case "HTTPRoute":
		s.HTTPRoutes = make(Objects[*gatewayv1.HTTPRoute], size)
	case "ReferenceGrant":
		s.ReferenceGrants = make(Objects[*gatewayv1beta1.ReferenceGrant], size)
	case "XBackend":
		s.XBackends = make(Objects[*gatewayxv1alpha1.XBackend], size)
	case "Service":
		s.Services = make(Objects[*corev1.Service], size)
	case "EndpointSlice":
		s.EndpointSlices = make(Objects[*discoveryv1.EndpointSlice], size)
	case "Secret":
		s.Secrets = make(Objects[*corev1.Secret], size)
	case "ConfigMap":
		s.ConfigMaps = make(Objects[*corev1.ConfigMap], size)
	case "Namespace":
		s.Namespaces = make(Objects[*corev1.Namespace], size)
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
