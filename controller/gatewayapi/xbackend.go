package gatewayapi

import (
	"fmt"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// readXBackend makes the target of an XBackend.
func (p *pass) readXBackend(t *target) {
	obj := t.backend
	name := t.key.namespace + "/" + t.key.name
	if obj == nil {
		t.refuse(problem.BackendNotFound, fmt.Sprintf("XBackend %s does not exist; create it or mend the name", name))
		return
	}
	t.cluster.Origin = p.origin("XBackend", obj.Namespace, obj.Name, obj.Generation, "")
	switch {
	case obj.Spec.Type != gatewayxv1alpha1.BackendTypeExternalHostname || obj.Spec.ExternalHostname == nil:
		t.refuse(problem.UnsupportedValue, fmt.Sprintf("XBackend %s has type %s, which this version does not serve; use ExternalHostname, or "+
			"a Service", name, obj.Spec.Type))
		return
	case obj.Spec.Port.Number < 1 || obj.Spec.Port.Number > 65535:
		t.refuse(problem.BackendNotFound, fmt.Sprintf("XBackend %s has no port; set spec.port.number", name))
		return
	case t.key.port != int32(obj.Spec.Port.Number):
		t.refuse(problem.BackendNotFound, fmt.Sprintf("XBackend %s has port %d, not %d; leave the port out of the backendRef", name,
			obj.Spec.Port.Number, t.key.port))
		return
	}
	hostname := string(obj.Spec.ExternalHostname.Hostname)
	host, err := p.externalHost(hostname)
	if err != nil {
		t.refuse(problem.InvalidBackend, fmt.Sprintf("XBackend %s has hostname %v", name, err))
		return
	}
	t.cluster.DNS = &config.DNS{Host: host, Port: uint16(t.key.port)}
	secure, ok := p.readXBackendTLS(t)
	if !ok {
		return
	}
	protocol, ok := xbackendProtocol(obj.Spec.Protocol, secure)
	if !ok {
		t.refuse(problem.UnsupportedProtocol, fmt.Sprintf("XBackend %s asks for protocol %s with TLS %t, which cannot be served; use HTTP, "+
			"HTTP11, H2C or GRPC, with TLS also HTTP2 or WSS, but not H2C", name, *obj.Spec.Protocol, secure))
		return
	}
	t.cluster.Protocol = protocol
}

// xbackendProtocol maps BackendProtocol. HTTP, the default, is what ALPN settles on over TLS and HTTP/1.1 without.
func xbackendProtocol(protocol *gatewayxv1alpha1.BackendProtocol, secure bool) (config.UpstreamProtocol, bool) {
	asked := gatewayxv1alpha1.BackendProtocolHTTP
	if protocol != nil {
		asked = *protocol
	}
	switch {
	case asked == gatewayxv1alpha1.BackendProtocolHTTP && !secure, asked == gatewayxv1alpha1.BackendProtocolHTTP11,
		asked == gatewayxv1alpha1.BackendProtocolWSS && secure:
		return config.UpstreamHTTP1, true
	case asked == gatewayxv1alpha1.BackendProtocolH2C && !secure, asked == gatewayxv1alpha1.BackendProtocolGRPC && !secure:
		return config.UpstreamH2C, true
	case asked == gatewayxv1alpha1.BackendProtocolHTTP, asked == gatewayxv1alpha1.BackendProtocolHTTP2 && secure,
		asked == gatewayxv1alpha1.BackendProtocolGRPC:
		return config.UpstreamHTTP2, true
	}
	return "", false
}

// readXBackendTLS reads spec.tls; ok is false when it cannot be followed, in which case the target is refused.
func (p *pass) readXBackendTLS(t *target) (secure, ok bool) {
	name := t.key.namespace + "/" + t.key.name
	settings := t.backend.Spec.TLS
	if settings == nil || settings.Mode == "" || settings.Mode == gatewayxv1alpha1.BackendTLSModeNone {
		return false, true
	}
	if settings.Mode != gatewayxv1alpha1.BackendTLSModeServerOnly {
		t.refuse(problem.UnsupportedValue, fmt.Sprintf("XBackend %s has tls.mode %s, and this version presents no client certificate; use "+
			"ServerOnly", name, settings.Mode))
		return false, false
	}
	v := settings.Validation
	if v == nil || v.Hostname == "" {
		t.refuse(problem.InvalidBackend, fmt.Sprintf("XBackend %s does not say whom to expect; set tls.validation.hostname", name))
		return false, false
	}
	t.cluster.TLS = &config.UpstreamTLS{ServerName: strings.ToLower(string(v.Hostname))}
	for _, san := range v.SubjectAltNames {
		switch san.Type {
		case gatewayv1.HostnameSubjectAltNameType:
			t.cluster.TLS.SubjectAltNames = append(t.cluster.TLS.SubjectAltNames,
				config.SubjectAltName{Type: "Hostname", Value: strings.ToLower(string(san.Hostname))})
		case gatewayv1.URISubjectAltNameType:
			t.cluster.TLS.SubjectAltNames = append(t.cluster.TLS.SubjectAltNames,
				config.SubjectAltName{Type: "URI", Value: string(san.URI)})
		default:
			t.refuse(problem.UnsupportedValue, fmt.Sprintf("XBackend %s has a subjectAltName of type %s; use Hostname or URI", name, san.Type))
			return false, false
		}
	}
	return true, p.readXBackendCAs(t, v)
}

// readXBackendCAs reads whom to trust. Every reference must hold: what is missing may be the CA that the owner means to move to, and
// trusting the rest would hide it until it is too late.
func (p *pass) readXBackendCAs(t *target, v *gatewayv1.BackendTLSPolicyValidation) bool {
	name := t.key.namespace + "/" + t.key.name
	var cas strings.Builder
	for _, ref := range v.CACertificateRefs {
		if ref.Group != "" || ref.Kind != "ConfigMap" {
			t.refuse(problem.InvalidKind, fmt.Sprintf("XBackend %s names CAs in kind %q; use a ConfigMap with %s", name, ref.Kind, caKey))
			return false
		}
		pem, err := p.readCA(t, string(ref.Name))
		if err != nil {
			t.refuse(problem.InvalidBackend, fmt.Sprintf("XBackend %s: %v", name, err))
			return false
		}
		cas.WriteString(strings.TrimRight(pem, "\n") + "\n")
	}
	system := v.WellKnownCACertificates != nil && *v.WellKnownCACertificates == gatewayv1.WellKnownCACertificatesSystem
	if cas.Len() == 0 && !system {
		t.refuse(problem.InvalidBackend, fmt.Sprintf("XBackend %s does not say whom to trust; set tls.validation.caCertificateRefs, or "+
			"wellKnownCACertificates to System", name))
		return false
	}
	t.cluster.TLS.CAs = cas.String()
	return true
}
