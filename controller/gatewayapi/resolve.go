package gatewayapi

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// resolution is what a backendRef leads to.
type resolution struct {
	// target is set also when it cannot be used; it is the zero key when the reference leads to no object at all.
	target targetKey
	// reason and message say why it leads nowhere; reason is "" when target can be used.
	reason  problem.Reason
	message string
}

// The group of XBackend, and that of Gateway API.
const (
	experimentalGroup = "gateway.networking.x-k8s.io"
	gatewayGroup      = gatewayv1.GroupName
)

// carriedBy is what the backends of a kind of route, or of another object that refers to one, are to carry.
func carriedBy(kind string) carries {
	switch kind {
	case "GRPCRoute":
		return carriesGRPC
	case "TLSRoute", "TCPRoute":
		return carriesTCP
	case "UDPRoute":
		return carriesUDP
	}
	return carriesHTTP
}

// resolve follows a backendRef of an object of a kind of Gateway API in a namespace. Whether it may be followed is asked before whether the
// object exists, so that nobody learns what other namespaces hold.
func (p *pass) resolve(from, namespace string, ref gatewayv1.BackendObjectReference) resolution {
	return p.resolveFor(from, namespace, ref, carriedBy(from))
}

// resolveFor is resolve for a backend that is to carry something of its own, such as that of an ExternalAuth filter.
func (p *pass) resolveFor(from, namespace string, ref gatewayv1.BackendObjectReference, what carries) resolution {
	group, kind := "", "Service"
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	key := targetKey{kind: kind, namespace: namespace, name: string(ref.Name), carries: what}
	if ref.Namespace != nil {
		key.namespace = string(*ref.Namespace)
	}
	if ref.Port != nil {
		key.port = *ref.Port
	}
	isService := group == "" && kind == "Service"
	isBackend := group == experimentalGroup && kind == "XBackend"
	switch {
	case !isService && !isBackend:
		return resolution{reason: problem.InvalidKind, message: fmt.Sprintf("kind %q in group %q is no backend; name a Service or an XBackend",
			kind, group)}
	case !p.grants.permits(reference{referrerGroup(from), from, namespace, group, kind, key.namespace, key.name}):
		return resolution{reason: problem.RefNotPermitted, message: fmt.Sprintf("no ReferenceGrant in namespace %s lets %ss of "+
			"namespace %s refer to %s %s; create one there", key.namespace, from, namespace, kind, key.name)}
	case isService && (key.port < 1 || key.port > 65535):
		return resolution{reason: problem.BackendNotFound, message: fmt.Sprintf("the reference to Service %s/%s has no port; set port",
			key.namespace, key.name)}
	case isBackend && key.port == 0:
		if obj := p.st.XBackends[types.NamespacedName{Namespace: key.namespace, Name: key.name}]; obj != nil {
			key.port = int32(obj.Spec.Port.Number)
		}
	}
	if key.carries == carriesGRPC && p.saysProtocol(key) {
		key.carries = carriesHTTP // the same cluster as that of HTTPRoutes
	}
	t := p.target(key)
	switch {
	case t.reason != "":
		return resolution{target: key, reason: t.reason, message: t.message}
	case what == carriesGRPC && t.cluster.Protocol == config.UpstreamHTTP1:
		return resolution{target: key, reason: problem.UnsupportedProtocol, message: fmt.Sprintf("%s %s/%s speaks HTTP/1.1 on port %d, and gRPC "+
			"needs HTTP/2; if it does speak HTTP/2, let it say so (appProtocol kubernetes.io/h2c)", kind, key.namespace, key.name, key.port)}
	}
	return resolution{target: key}
}

// referrerGroup is the API group of a kind that refers to backends.
func referrerGroup(kind string) string {
	if kind != "" && kind[0] == 'X' {
		return experimentalGroup
	}
	return gatewayGroup
}

// saysProtocol reports whether a destination itself says what it speaks.
func (p *pass) saysProtocol(key targetKey) bool {
	if key.kind == "XBackend" {
		obj := p.st.XBackends[types.NamespacedName{Namespace: key.namespace, Name: key.name}]
		return obj == nil || obj.Spec.Protocol != nil
	}
	service := p.st.Services[types.NamespacedName{Namespace: key.namespace, Name: key.name}]
	if service == nil {
		return false
	}
	for _, port := range service.Spec.Ports {
		if port.Port == key.port && port.Protocol != corev1.ProtocolUDP {
			return port.AppProtocol != nil && *port.AppProtocol != ""
		}
	}
	return false
}
