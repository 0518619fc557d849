package gatewayapi

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// appProtocol is what a value of ServicePort.appProtocol asks for (KEP-3726, GEP-1911).
type appProtocol struct {
	protocol config.UpstreamProtocol
	tls      bool
}

func readAppProtocol(value string) (appProtocol, bool) {
	switch strings.ToLower(value) {
	case "", "http", "kubernetes.io/ws":
		return appProtocol{config.UpstreamHTTP1, false}, true
	case "kubernetes.io/h2c", "grpc":
		return appProtocol{config.UpstreamH2C, false}, true
	case "https", "kubernetes.io/https":
		return appProtocol{config.UpstreamHTTP2, true}, true
	case "kubernetes.io/wss":
		return appProtocol{config.UpstreamHTTP1, true}, true
	}
	return appProtocol{}, false
}

// spokenBy returns how a port of a Service is spoken to, and its appProtocol. Streams pass whatever is inside them.
func spokenBy(key targetKey, port *corev1.ServicePort) (spoken appProtocol, app string, known bool) {
	if port.AppProtocol != nil {
		app = *port.AppProtocol
	}
	switch key.carries {
	case carriesTCP:
		return appProtocol{config.UpstreamTCP, false}, app, true
	case carriesUDP:
		return appProtocol{config.UpstreamUDP, false}, app, true
	case carriesGRPC:
		return appProtocol{config.UpstreamH2C, false}, app, true
	}
	spoken, known = readAppProtocol(app)
	return spoken, app, known
}

// readService makes the target of one port of a Service.
func (p *pass) readService(t *target) {
	service := t.service
	if service == nil {
		t.refuse(problem.BackendNotFound, fmt.Sprintf("Service %s/%s does not exist; create it or mend the name", t.key.namespace, t.key.name))
		return
	}
	t.cluster.Origin = p.origin("Service", service.Namespace, service.Name, service.Generation, "")
	port, ok := p.servicePort(t)
	if !ok {
		return
	}
	spoken, app, known := spokenBy(t.key, &port)
	if !known {
		t.refuse(problem.UnsupportedProtocol, fmt.Sprintf("Service %s/%s says appProtocol %q for port %d, which is not served; use http, "+
			"https, kubernetes.io/h2c, kubernetes.io/ws or kubernetes.io/wss", service.Namespace, service.Name, app, t.key.port))
		return
	}
	t.cluster.Protocol, t.portName = spoken.protocol, port.Name
	serverName := service.Name + "." + service.Namespace + ".svc"
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		host, err := p.externalHost(service.Spec.ExternalName)
		if err != nil {
			t.refuse(problem.InvalidBackend, fmt.Sprintf("Service %s/%s has externalName %v", service.Namespace, service.Name, err))
			return
		}
		t.cluster.DNS, serverName = &config.DNS{Host: host, Port: uint16(t.key.port), Loopback: p.opts.Standalone}, host
	} else {
		t.sliced = true
	}
	if t.key.carries == carriesUDP {
		return
	}
	t.tlsPolicy, t.secured = p.tlsPolicyOf(types.NamespacedName{Namespace: service.Namespace, Name: service.Name}, port.Name), true
	switch {
	case t.tlsPolicy != nil:
		if t.key.carries == carriesHTTP && (app == "" || strings.EqualFold(app, "http")) {
			t.cluster.Protocol = config.UpstreamHTTP2 // HTTP/1.1 or HTTP/2, as ALPN settles it
		}
		t.secureBy(t.tlsPolicy)
	case spoken.tls:
		t.cluster.TLS = &config.UpstreamTLS{ServerName: serverName}
	}
}

// servicePort finds the port that a backendRef names. A Service of type ExternalName need not list its ports.
func (p *pass) servicePort(t *target) (corev1.ServicePort, bool) {
	name, wanted, other := t.service.Namespace+"/"+t.service.Name, corev1.ProtocolTCP, corev1.Protocol("")
	if t.key.carries == carriesUDP {
		wanted = corev1.ProtocolUDP
	}
	for _, port := range t.service.Spec.Ports {
		protocol := cmp.Or(port.Protocol, corev1.ProtocolTCP)
		if port.Port != t.key.port {
			continue
		}
		if protocol == wanted {
			return port, true
		}
		other = protocol
	}
	switch {
	case other != "":
		t.refuse(problem.UnsupportedProtocol, fmt.Sprintf("port %d of Service %s is %s, not %s; name a %s port", t.key.port, name, other, wanted,
			wanted))
	case t.service.Spec.Type == corev1.ServiceTypeExternalName && len(t.service.Spec.Ports) == 0:
		return corev1.ServicePort{}, true
	default:
		t.refuse(problem.BackendNotFound, fmt.Sprintf("Service %s has no port %d; it has %s", name, t.key.port, portList(t.service)))
	}
	return corev1.ServicePort{}, false
}

func portList(service *corev1.Service) string {
	var list []string
	for _, port := range service.Spec.Ports {
		list = append(list, fmt.Sprint(port.Port))
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// localSuffixes are names that lead into the cluster or into the gateway's own machine.
var localSuffixes = [...]string{"localhost", "cluster.local", "svc"}

// externalHost checks a host outside the cluster, as ExternalName and XBackend name it. In a cluster it must not be a way around
// ReferenceGrant (another namespace's Service by its DNS name) or into the gateway's pod.
func (p *pass) externalHost(name string) (string, error) {
	host := strings.ToLower(strings.TrimSuffix(name, "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return "", fmt.Errorf("%q, which is an IP address; list addresses in an EndpointSlice of a Service with ports", name)
	}
	if errs := validation.IsDNS1123Subdomain(host); len(errs) > 0 {
		return "", fmt.Errorf("%q, which is no DNS name: %s", name, strings.Join(errs, "; "))
	}
	if !p.opts.Standalone && slices.ContainsFunc(localSuffixes[:], func(s string) bool { return host == s || strings.HasSuffix(host, "."+s) }) {
		return "", fmt.Errorf("%q, which is a name inside the cluster or this machine; refer to the Service itself, with a ReferenceGrant "+
			"where it is in another namespace", name)
	}
	return host, nil
}
