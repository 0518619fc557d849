package gatewayapi

import (
	"fmt"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/auth/extauthz"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/config"
)

// ExternalAuth stands in two places: as a filter of an HTTPRoute, and of a listener, where it runs before a route is chosen. In both a reference
// that leads nowhere leaves the filter in place, and it refuses every request: to drop it would let everybody in.

// authCarries is what the backend of an ExternalAuth filter is to carry.
func authCarries(f *gatewayv1.HTTPExternalAuthFilter) carries {
	if f.ExternalAuthProtocol == gatewayv1.HTTPRouteExternalAuthGRPCProtocol {
		return carriesGRPC
	}
	return carriesHTTP
}

// extAuthConfig translates the filter, whose backendRef leads to got. What the filter itself does not take, its own package says.
func extAuthConfig(f *gatewayv1.HTTPExternalAuthFilter, got resolution) extauthz.Config {
	cfg := extauthz.Config{Protocol: extauthz.Protocol(f.ExternalAuthProtocol)}
	if got.reason != "" {
		cfg.Invalid = string(got.reason)
	} else {
		cfg.Cluster = got.target.String()
	}
	if f.GRPCAuthConfig != nil {
		cfg.AllowedHeaders = f.GRPCAuthConfig.AllowedRequestHeaders
	}
	if f.HTTPAuthConfig != nil {
		cfg.Path = f.HTTPAuthConfig.Path
		cfg.AllowedHeaders = f.HTTPAuthConfig.AllowedRequestHeaders
		cfg.AllowedResponseHeaders = f.HTTPAuthConfig.AllowedResponseHeaders
	}
	if f.ForwardBody != nil {
		cfg.MaxBody = f.ForwardBody.MaxSize
	}
	return cfg
}

// extAuth translates the filter of a rule or backend.
func (b *routeBuilder) extAuth(at string, f *gatewayv1.HTTPExternalAuthFilter) extauthz.Config {
	return extAuthConfig(f, b.resolveFor(at+".externalAuth.backendRef", "the requests that it would let in", f.BackendRef, authCarries(f)))
}

// leadFilters notes the targets that filters lead to, beside the backends.
func (b *routeBuilder) leadFilters(list []gatewayv1.HTTPRouteFilter) {
	for i := range list {
		var ref *gatewayv1.BackendObjectReference
		carries := carriedBy(b.key.kind)
		switch f := &list[i]; {
		case f.RequestMirror != nil:
			ref = &f.RequestMirror.BackendRef
		case f.ExternalAuth != nil:
			ref, carries = &f.ExternalAuth.BackendRef, authCarries(f.ExternalAuth)
		default:
			continue
		}
		if got := b.pass.resolveFor(b.key.kind, b.key.namespace, *ref, carries); got.reason == "" {
			b.lead(got.target)
		}
	}
}

// listenerUse is a reference that a listener's filters follow.
type listenerUse struct {
	gateway         *gateway
	kind, namespace string
	backendUse
}

// readListenerFilters reads what runs on each request before a route is chosen. A filter that cannot be built closes the listener: requests
// must not pass without it.
func (p *pass) readListenerFilters(v *view, l *listener) {
	if l.spec.Filters == nil {
		return
	}
	if l.config.Protocol != config.HTTP && l.config.Protocol != config.HTTPS && len(l.spec.Filters.Requests) > 0 {
		l.refuse(v, "filters", problem.UnsupportedValue, "filters are for protocols HTTP and HTTPS; remove them")
		return
	}
	for i := range l.spec.Filters.Requests {
		f := &l.spec.Filters.Requests[i]
		at := fmt.Sprintf("filters.requests[%d]", i)
		switch {
		case f.Type == gatewayv1.ListenerFilterExtensionRef:
			l.refuse(v, at+".extensionRef", problem.UnsupportedValue, "this version has no extension filters, and requests must not pass without "+
				"it; remove the filter")
		case f.Type != gatewayv1.ListenerFilterExternalAuth:
			l.refuse(v, at+".type", problem.UnsupportedValue, "filter type %q is not known; remove the filter", f.Type)
		case f.ExternalAuth == nil:
			l.refuse(v, at, problem.UnsupportedValue, "a filter of type %s without its settings; fill in the field of that name", f.Type)
		default:
			p.readListenerAuth(v, l, at+".externalAuth", f.ExternalAuth)
		}
	}
}

func (p *pass) readListenerAuth(v *view, l *listener, at string, f *gatewayv1.HTTPExternalAuthFilter) {
	use := listenerUse{gateway: l.gateway, kind: l.owner.Kind, namespace: l.owner.Namespace,
		backendUse: backendUse{ref: f.BackendRef, carries: authCarries(f)}}
	use.got = p.resolveFor(use.kind, use.namespace, use.ref, use.carries)
	v.uses = append(v.uses, use)
	if use.got.reason != "" {
		l.unresolved(v, at+".backendRef", use.got.reason, "the requests of the listener", "%s; it answers every request 403", use.got.message)
	}
	payload := filters.Encode(extAuthConfig(f, use.got))
	if err := p.opts.Filters.Validate(extauthz.Kind, payload); err != nil {
		l.refuse(v, at, problem.UnsupportedValue, "%v", err)
		return
	}
	l.config.Filters = append(l.config.Filters, config.Policy{Kind: extauthz.Kind, Payload: payload})
	if use.got.reason == "" {
		l.lead(p.target(use.got.target))
	}
}

// lead notes that the listener itself leads to a target.
func (l *listener) lead(t *target) {
	if !slices.Contains(l.targets, t) {
		l.targets = append(l.targets, t)
	}
}

// viewLeadsElsewhere reports whether a reference of a listener's filter resolves differently than when the view was made.
func (p *pass) viewLeadsElsewhere(v *view) bool {
	return slices.ContainsFunc(v.uses, func(use listenerUse) bool {
		return p.resolveFor(use.kind, use.namespace, use.ref, use.carries) != use.got
	})
}
