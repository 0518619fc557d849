package gatewayapi

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// frontendValidation returns the client certificate validation for HTTPS on a port, and where it stands: that of the port, or the default
// (Gateway API: FrontendTLSConfig).
func (g *gateway) frontendValidation(port int32) (v *gatewayv1.FrontendTLSValidation, field string) {
	if g.obj.Spec.TLS == nil || g.obj.Spec.TLS.Frontend == nil {
		return nil, ""
	}
	for i, per := range g.obj.Spec.TLS.Frontend.PerPort {
		if per.Port == port {
			return per.TLS.Validation, fmt.Sprintf("spec.tls.frontend.perPort[%d].tls.validation", i)
		}
	}
	return g.obj.Spec.TLS.Frontend.Default.Validation, "spec.tls.frontend.default.validation"
}

// insecureCondition tells of the Gateway that it lets clients in whose certificates do not verify, nil when it does not.
func (g *gateway) insecureCondition() *plan.Condition {
	if g.obj.Spec.TLS == nil || g.obj.Spec.TLS.Frontend == nil {
		return nil
	}
	insecure := func(v *gatewayv1.FrontendTLSValidation) bool {
		return v != nil && v.Mode == gatewayv1.AllowInsecureFallback
	}
	found := insecure(g.obj.Spec.TLS.Frontend.Default.Validation)
	for _, per := range g.obj.Spec.TLS.Frontend.PerPort {
		found = found || insecure(per.TLS.Validation)
	}
	if !found {
		return nil
	}
	c := condition(gatewayv1.GatewayConditionInsecureFrontendValidationMode, true, gatewayv1.GatewayReasonConfigurationChanged,
		"clients are let in without a valid certificate (mode AllowInsecureFallback); backends must authenticate them")
	return &c
}

// readClientValidation reads how the listener verifies its clients. As long as one of several references to CAs resolves, clients of that
// CA are let in. When none does the listener stays closed: open it would let everybody in.
func (p *pass) readClientValidation(v *view, l *listener) {
	spec, field := l.gateway.frontendValidation(l.spec.Port)
	if spec == nil {
		return
	}
	made := &config.ClientValidation{}
	first := ""
	unresolved := func(i int, reason problem.Reason, format string, args ...any) {
		one := gatewayProblem(l.gateway.obj, fmt.Sprintf("%s.caCertificateRefs[%d]", field, i), reason, "those CA certificates", format, args...)
		if l.resolved.Status {
			l.resolved = condition(gatewayv1.ListenerConditionResolvedRefs, false, reason, one.Message)
		}
		if first == "" {
			first = one.Message
		}
		v.problemOnce(one)
	}
	for i, ref := range spec.CACertificateRefs {
		namespace := l.gateway.obj.Namespace
		if ref.Namespace != nil {
			namespace = string(*ref.Namespace)
		}
		key, ok := bundleRef(string(ref.Group), string(ref.Kind), namespace, string(ref.Name))
		if !ok {
			unresolved(i, problem.InvalidCACertificateKind, "kind %q in group %q holds no CA certificates; name a ConfigMap, a Secret or a "+
				"ClusterTrustBundle", ref.Kind, ref.Group)
			continue
		}
		if key.namespace != "" && !p.grants.permits(reference{gatewayGroup, "Gateway", l.gateway.obj.Namespace, "", key.kind, key.namespace,
			key.name}) {
			unresolved(i, problem.RefNotPermitted, "no ReferenceGrant in namespace %s lets Gateways of namespace %s use %s; create one there",
				key.namespace, l.gateway.obj.Namespace, key)
			continue
		}
		if b := p.bundle(key); b.err != nil {
			unresolved(i, problem.InvalidCACertificateRef, "%v", b.err)
		} else {
			made.CAs += b.pem
		}
	}
	shut := func(field string, reason problem.Reason, format string, args ...any) {
		one := gatewayProblem(l.gateway.obj, field, reason, l.setAside(), format, args...)
		if l.accepted.Status {
			l.accepted = condition(gatewayv1.ListenerConditionAccepted, false, reason, one.Message)
		}
		v.problem(one)
	}
	if len(made.CAs) > maxCAs {
		shut(field+".caCertificateRefs", problem.NoValidCACertificate, "listener %s stays closed: %s", l.spec.Name, errTooManyCAs)
		return
	}
	switch spec.Mode {
	case "", gatewayv1.AllowValidOnly:
	case gatewayv1.AllowInsecureFallback:
		made.AllowInsecureFallback = true
	default:
		shut(field+".mode", problem.UnsupportedValue, "mode %q is not known; use AllowValidOnly or AllowInsecureFallback", spec.Mode)
		return
	}
	if made.CAs == "" {
		if first == "" {
			first = "name one in caCertificateRefs"
		}
		shut(field+".caCertificateRefs", problem.NoValidCACertificate, "listener %s has no CA certificate to verify clients with, so it stays "+
			"closed: %s", l.spec.Name, first)
		return
	}
	l.config.TLS.ClientValidation = made
}

// problemOnce adds a problem that several listeners have in common.
func (v *view) problemOnce(one problem.Problem) {
	for _, other := range v.problems {
		if other == one {
			return
		}
	}
	v.problem(one)
}
