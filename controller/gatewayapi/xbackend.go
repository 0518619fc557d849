package gatewayapi

import (
	"fmt"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/plan"
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
	case obj.Spec.Port.Number < 1 || obj.Spec.Port.Number > 65535:
		t.refuse(problem.BackendNotFound, fmt.Sprintf("XBackend %s has no port; set spec.port.number", name))
		return
	case t.key.port != int32(obj.Spec.Port.Number):
		t.refuse(problem.BackendNotFound, fmt.Sprintf("XBackend %s has port %d, not %d; leave the port out of the backendRef", name,
			obj.Spec.Port.Number, t.key.port))
		return
	}
	if !p.readXBackendEndpoints(t) {
		return
	}
	secure, ok := p.readXBackendTLS(t)
	if !ok {
		return
	}
	switch {
	case t.key.carries == carriesTCP:
		t.cluster.Protocol = config.UpstreamTCP
		return
	case t.key.carries == carriesUDP && secure:
		t.refuse(problem.UnsupportedProtocol, fmt.Sprintf("XBackend %s has TLS, and datagrams are not sent over TLS; name one without", name))
		return
	case t.key.carries == carriesUDP:
		t.cluster.Protocol = config.UpstreamUDP
		return
	}
	asked := gatewayxv1alpha1.BackendProtocolHTTP
	switch {
	case obj.Spec.Protocol != nil:
		asked = *obj.Spec.Protocol
	case t.key.carries == carriesGRPC:
		asked = gatewayxv1alpha1.BackendProtocolGRPC
	}
	protocol, ok := xbackendProtocol(asked, secure)
	if !ok {
		t.refuse(problem.UnsupportedProtocol, fmt.Sprintf("XBackend %s asks for protocol %s with TLS %t, which cannot be served; use HTTP, "+
			"HTTP11, MCP, H2C or GRPC, with TLS also HTTP2 or WSS, but not H2C", name, asked, secure))
		return
	}
	t.cluster.Protocol = protocol
	p.readXBackendSessions(t)
}

// readXBackendEndpoints reads where an XBackend leads; it returns false when the target is refused.
func (p *pass) readXBackendEndpoints(t *target) bool {
	obj, name := t.backend, t.key.namespace+"/"+t.key.name
	switch {
	case obj.Spec.Type == gatewayxv1alpha1.BackendTypeExternalHostname && obj.Spec.ExternalHostname != nil:
		host, err := p.externalHost(string(obj.Spec.ExternalHostname.Hostname))
		if err != nil {
			t.refuse(problem.InvalidBackend, fmt.Sprintf("XBackend %s has hostname %v", name, err))
			return false
		}
		t.cluster.DNS = &config.DNS{Host: host, Port: uint16(t.key.port), Loopback: p.opts.Standalone}
	case obj.Spec.Type == gatewayxv1alpha1.BackendTypeEndpointSelector && p.opts.Standalone:
		t.refuse(problem.UnsupportedValue, fmt.Sprintf("XBackend %s selects Pods, which there are in a cluster only; use ExternalHostname, or a "+
			"Service with EndpointSlices", name))
		return false
	case obj.Spec.Type == gatewayxv1alpha1.BackendTypeEndpointSelector && obj.Spec.EndpointSelector != nil:
		set := make(labels.Set, len(obj.Spec.EndpointSelector.MatchLabels))
		for key, value := range obj.Spec.EndpointSelector.MatchLabels {
			set[string(key)] = string(value)
		}
		if len(set) == 0 {
			// No label at all would be every Pod of the namespace.
			t.refuse(problem.InvalidBackend, fmt.Sprintf("XBackend %s selects by no label; set endpointSelector.matchLabels", name))
			return false
		}
		t.selector = labels.SelectorFromSet(set)
	default:
		t.refuse(problem.UnsupportedValue, fmt.Sprintf("XBackend %s has type %q, or not the settings of that type; use ExternalHostname with "+
			"externalHostname, or EndpointSelector with endpointSelector", name, obj.Spec.Type))
		return false
	}
	return true
}

// readXBackendSessions reads spec.sessionPersistence, which only endpoints that are told apart can have.
func (p *pass) readXBackendSessions(t *target) {
	spec := t.backend.Spec.SessionPersistence
	if spec == nil {
		return
	}
	owner := sessionOwner{kind: "XBackend", namespace: t.key.namespace, name: t.key.name, uid: t.backend.UID}
	made, wrong := p.sessionPersistence(spec, owner)
	if wrong.reason != "" {
		t.refuse(problem.InvalidBackend, fmt.Sprintf("XBackend %s/%s: spec.sessionPersistence%s: %s", t.key.namespace, t.key.name, wrong.field,
			wrong.message))
		return
	}
	t.cluster.Persistence = made
}

// xbackendProtocol maps BackendProtocol. HTTP, the default, is what ALPN settles on over TLS and HTTP/1.1 without. MCP is HTTP.
func xbackendProtocol(asked gatewayxv1alpha1.BackendProtocol, secure bool) (config.UpstreamProtocol, bool) {
	if asked == gatewayxv1alpha1.BackendProtocolMCP {
		asked = gatewayxv1alpha1.BackendProtocolHTTP
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

// readXBackendTLS reads spec.tls; ok is false when it cannot be followed, in which case the target is refused. Of several references to CAs
// each must hold: an XBackend has no condition to tell of one that does not.
func (p *pass) readXBackendTLS(t *target) (secure, ok bool) {
	name := t.key.namespace + "/" + t.key.name
	settings := t.backend.Spec.TLS
	if settings == nil || settings.Mode == "" || settings.Mode == gatewayxv1alpha1.BackendTLSModeNone {
		return false, true
	}
	refuse := func(reason problem.Reason, format string, args ...any) (bool, bool) {
		t.refuse(reason, fmt.Sprintf("XBackend %s: spec.tls", name)+fmt.Sprintf(format, args...))
		return false, false
	}
	if settings.Mode != gatewayxv1alpha1.BackendTLSModeServerOnly && settings.Mode != gatewayxv1alpha1.BackendTLSModeClientAndServer {
		return refuse(problem.UnsupportedValue, ".mode: %q is not known; use None, ServerOnly or ClientAndServer", settings.Mode)
	}
	if settings.Validation == nil {
		return refuse(problem.InvalidBackend, ".validation: it does not say whom to expect; set hostname, and caCertificateRefs or "+
			"wellKnownCACertificates")
	}
	for _, ref := range settings.Validation.CACertificateRefs {
		if key, ok := bundleRef(string(ref.Group), string(ref.Kind), t.key.namespace, string(ref.Name)); ok {
			t.bundles = append(t.bundles, bundleUse{key, p.bundleObject(key)})
		}
	}
	said := p.readTrust(t.key.namespace, settings.Validation)
	switch {
	case len(said.unresolved) > 0:
		return refuse(said.unresolved[0].reason, ".validation%s: %s", said.unresolved[0].field, said.unresolved[0].message)
	case said.tls == nil:
		return refuse(problem.InvalidBackend, ".validation%s: %s", said.invalid.field, said.invalid.message)
	}
	t.cluster.TLS = said.tls
	if settings.Mode == gatewayxv1alpha1.BackendTLSModeServerOnly {
		return true, true
	}
	if settings.ClientCertificateRef == nil {
		return refuse(problem.InvalidBackend, ".clientCertificateRef: mode ClientAndServer needs a certificate to present; set it")
	}
	cert, use, wrong := p.clientCertificate(experimentalGroup, "XBackend", t.key.namespace, settings.ClientCertificateRef)
	if use.key.kind != "" {
		t.bundles = append(t.bundles, use)
	}
	if wrong.reason != "" {
		return refuse(wrong.reason, ".clientCertificateRef: %s", wrong.message)
	}
	t.cluster.TLS.ClientCertificate, t.certificate = cert.Name, cert
	return true, true
}

// certified reports whether an XBackend names a client certificate, which grants may forbid.
func (t *target) certified() bool {
	return t.backend != nil && t.backend.Spec.TLS != nil && t.backend.Spec.TLS.ClientCertificateRef != nil
}

// reportXBackends says what became of the XBackends under each Gateway that leads to them.
func (p *pass) reportXBackends() {
	for key, obj := range p.st.XBackends {
		accepted := condition(gatewayxv1alpha1.BackendConditionAccepted, true, gatewayxv1alpha1.BackendReasonAccepted, "")
		for _, g := range p.leads.gateways([]leadKey{{"XBackend", key.Namespace, key.Name}}) {
			if why := p.refusedXBackend(key, int32(obj.Spec.Port.Number)); why != nil {
				accepted = condition(gatewayxv1alpha1.BackendConditionAccepted, false, why.reason, why.message)
			}
			p.b.Outcome(plan.Outcome{Object: p.origin("XBackend", key.Namespace, key.Name, obj.Generation, ""), Parent: g.origin,
				Conditions: []plan.Condition{accepted}, AttachedRoutes: -1})
		}
	}
}

// refusedXBackend returns a target of an XBackend that cannot be used, nil as long as one can: a backend that carries HTTP is in order,
// also when a TCPRoute leads there that it cannot serve.
func (p *pass) refusedXBackend(name types.NamespacedName, port int32) (refused *target) {
	for _, carried := range []carries{carriesHTTP, carriesGRPC, carriesTCP, carriesUDP} {
		t := p.targets[targetKey{kind: "XBackend", namespace: name.Namespace, name: name.Name, port: port, carries: carried}]
		if t == nil {
			continue
		}
		p.refresh(t)
		if t.reason == "" {
			return nil
		}
		if refused == nil {
			refused = t
		}
	}
	return refused
}
