package gatewayapi

import (
	"crypto/x509"
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

// Annotations on a Service say how its TLS ports (appProtocol https or wss) are verified. They concern no other port.
const (
	// AnnotationCA names a ConfigMap of the Service's namespace whose ca.crt holds the CAs to trust in place of the system's.
	AnnotationCA = "gatehouse.dev/ca-configmap"
	// AnnotationServerName is the name sent as SNI and verified, in place of NAME.NAMESPACE.svc or the external name.
	AnnotationServerName = "gatehouse.dev/server-name"
)

// caKey is where a ConfigMap holds CAs (Gateway API: BackendTLSPolicyValidation.caCertificateRefs).
const caKey = "ca.crt"

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
	app := ""
	if port.AppProtocol != nil {
		app = *port.AppProtocol
	}
	spoken, known := readAppProtocol(app)
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
		t.cluster.DNS, serverName = &config.DNS{Host: host, Port: uint16(t.key.port)}, host
	} else {
		t.sliced = true
	}
	if spoken.tls {
		p.readServiceTLS(t, serverName)
	}
}

// servicePort finds the port that a backendRef names. A Service of type ExternalName need not list its ports.
func (p *pass) servicePort(t *target) (corev1.ServicePort, bool) {
	name, udp := t.service.Namespace+"/"+t.service.Name, false
	for _, port := range t.service.Spec.Ports {
		if port.Port != t.key.port {
			continue
		}
		if port.Protocol == "" || port.Protocol == corev1.ProtocolTCP {
			return port, true
		}
		udp = true
	}
	switch {
	case udp:
		t.refuse(problem.UnsupportedProtocol, fmt.Sprintf("port %d of Service %s is not TCP; HTTP needs a TCP port", t.key.port, name))
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

// readServiceTLS reads the annotations. One that cannot be followed refuses the target: falling back to other roots or another name
// would trust whom the owner did not name.
func (p *pass) readServiceTLS(t *target, serverName string) {
	name := t.service.Namespace + "/" + t.service.Name
	if override, ok := t.service.Annotations[AnnotationServerName]; ok {
		if errs := validation.IsDNS1123Subdomain(override); len(errs) > 0 {
			t.refuse(problem.InvalidBackend, fmt.Sprintf("annotation %s of Service %s is no DNS name: %s", AnnotationServerName, name,
				strings.Join(errs, "; ")))
			return
		}
		serverName = override
	}
	t.cluster.TLS = &config.UpstreamTLS{ServerName: serverName}
	if ref, ok := t.service.Annotations[AnnotationCA]; ok {
		cas, err := p.readCA(t, ref)
		if err != nil {
			t.refuse(problem.InvalidBackend, fmt.Sprintf("annotation %s of Service %s: %v", AnnotationCA, name, err))
			return
		}
		t.cluster.TLS.CAs = cas
	}
}

// readCA reads the CAs of a ConfigMap in the target's namespace.
func (p *pass) readCA(t *target, name string) (string, error) {
	key := types.NamespacedName{Namespace: t.key.namespace, Name: name}
	obj := p.st.ConfigMaps[key]
	t.configMaps = append(t.configMaps, configMapUse{key, obj})
	if obj == nil {
		return "", fmt.Errorf("ConfigMap %s does not exist; create it with the CAs in %s", key, caKey)
	}
	pem := obj.Data[caKey]
	if pem == "" {
		pem = string(obj.BinaryData[caKey])
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(pem)) {
		return "", fmt.Errorf("ConfigMap %s holds no PEM certificate in %s; put the CA certificates there", key, caKey)
	}
	return pem, nil
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
