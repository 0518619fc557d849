package gatewayapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/routing"
)

// listener is one listener of a Gateway.
type listener struct {
	gateway *gateway
	index   int
	spec    *gatewayv1.Listener
	config  config.Listener
	// known is whether the protocol is one that is served.
	known bool
	// kinds are the route kinds that may attach.
	kinds []string
	from  gatewayv1.FromNamespaces
	// selector chooses namespaces when from is Selector; nil admits none.
	selector     labels.Selector
	certificates []*config.Certificate
	accepted     plan.Condition
	conflicted   plan.Condition
	resolved     plan.Condition
	// overlaps is the message of the condition OverlappingTLSConfig, "" without it.
	overlaps string

	// Of the pass: what is built of the listener, nil if it does not serve, and how many accepted routes attach to it.
	built    *config.Listener
	attached int
}

// optionPrefix marks the listener TLS options that are meant for this gateway.
const optionPrefix = "gatehouse.dev/"

// buildListener judges one listener by itself; conflicts with others come after.
func (p *pass) buildListener(v *view, g *gateway, i int) *listener {
	spec := &g.obj.Spec.Listeners[i]
	l := &listener{
		gateway: g, index: i, spec: spec,
		accepted:   condition(gatewayv1.ListenerConditionAccepted, true, gatewayv1.ListenerReasonAccepted, ""),
		conflicted: condition(gatewayv1.ListenerConditionConflicted, false, gatewayv1.ListenerReasonNoConflicts, ""),
		resolved:   condition(gatewayv1.ListenerConditionResolvedRefs, true, gatewayv1.ListenerReasonResolvedRefs, ""),
	}
	l.config = config.Listener{
		Origin:    p.origin("Gateway", g.obj.Namespace, g.obj.Name, g.obj.Generation, string(spec.Name)),
		Name:      g.obj.Namespace + "/" + g.obj.Name + "/" + string(spec.Name),
		Addresses: g.addresses,
		Port:      uint16(spec.Port),
	}
	if spec.Hostname != nil {
		l.config.Hostname = strings.ToLower(string(*spec.Hostname))
	}
	l.readProtocol(v)
	l.readKinds(v)
	l.readNamespaces(v)
	if l.known {
		if spec.Filters != nil && len(spec.Filters.Requests) > 0 {
			l.refuse(v, "filters", problem.UnsupportedValue, "listener filters are not served, and requests must not pass without them; "+
				"move them to the routes")
		}
		if l.config.Protocol == config.HTTPS {
			p.readTLS(v, l)
		}
	}
	return l
}

// readProtocol takes HTTP and HTTPS on a port and hostname that can be served.
func (l *listener) readProtocol(v *view) {
	mode := gatewayv1.TLSModeTerminate
	if l.spec.TLS != nil && l.spec.TLS.Mode != nil {
		mode = *l.spec.TLS.Mode
	}
	if err := routing.ValidateHost(l.config.Hostname); err != nil {
		l.refuse(v, "hostname", problem.UnsupportedValue, "%v", err)
		return
	}
	switch {
	case l.spec.Port < 1 || l.spec.Port > 65535:
		l.refuse(v, "port", problem.UnsupportedValue, "port %d is not between 1 and 65535", l.spec.Port)
	case l.spec.Protocol == gatewayv1.HTTPProtocolType:
		l.known, l.config.Protocol = true, config.HTTP
	case l.spec.Protocol == gatewayv1.HTTPSProtocolType && mode == gatewayv1.TLSModeTerminate:
		l.known, l.config.Protocol = true, config.HTTPS
	case l.spec.Protocol == gatewayv1.HTTPSProtocolType:
		l.refuse(v, "tls.mode", problem.UnsupportedProtocol, "HTTPS with mode %s is not served; use mode Terminate", mode)
	default:
		l.refuse(v, "protocol", problem.UnsupportedProtocol, "protocol %q is not served by this version; use HTTP or HTTPS",
			l.spec.Protocol)
	}
}

// readKinds reads allowedRoutes.kinds. Without any, the protocol decides.
func (l *listener) readKinds(v *view) {
	if !l.known {
		return
	}
	if l.spec.AllowedRoutes == nil || len(l.spec.AllowedRoutes.Kinds) == 0 {
		l.kinds = []string{"HTTPRoute"}
		return
	}
	for i, kind := range l.spec.AllowedRoutes.Kinds {
		switch {
		case (kind.Group != nil && *kind.Group != gatewayv1.GroupName) || kind.Kind != "HTTPRoute":
			field := fmt.Sprintf("allowedRoutes.kinds[%d]", i)
			l.unresolved(v, field, problem.InvalidRouteKinds, "routes of that kind",
				"kind %q cannot attach to a listener of protocol %s; use HTTPRoute", kind.Kind, l.spec.Protocol)
		case !slices.Contains(l.kinds, string(kind.Kind)):
			l.kinds = append(l.kinds, string(kind.Kind))
		}
	}
}

// readNamespaces reads allowedRoutes.namespaces. The default is the Gateway's own namespace.
func (l *listener) readNamespaces(v *view) {
	l.from = gatewayv1.NamespacesFromSame
	if l.spec.AllowedRoutes == nil || l.spec.AllowedRoutes.Namespaces == nil || l.spec.AllowedRoutes.Namespaces.From == nil {
		return
	}
	namespaces := l.spec.AllowedRoutes.Namespaces
	l.from = *namespaces.From
	switch l.from {
	case gatewayv1.NamespacesFromSame, gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromNone:
	case gatewayv1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(namespaces.Selector)
		if err != nil {
			v.problem(l.problem("allowedRoutes.namespaces.selector", problem.UnsupportedValue, "all routes of the listener",
				"the selector does not parse, so it admits no namespace: %v", err))
			return
		}
		l.selector = selector
	default:
		v.problem(l.problem("allowedRoutes.namespaces.from", problem.UnsupportedValue, "all routes of the listener",
			"%q is not known, so it admits no namespace; use Same, All, Selector or None", l.from))
	}
}

// admits reports whether routes of a namespace may attach.
func (l *listener) admits(namespace string, st *source.State) bool {
	switch l.from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSame:
		return namespace == l.gateway.obj.Namespace
	case gatewayv1.NamespacesFromSelector:
		return l.selector != nil && l.selector.Matches(namespaceLabels(namespace, st))
	}
	return false
}

// namespaceLabels returns a namespace's labels. The name is one of them, as in a cluster, also when a folder holds no such object.
func namespaceLabels(namespace string, st *source.State) labels.Set {
	set := labels.Set{}
	if obj := st.Namespaces[types.NamespacedName{Name: namespace}]; obj != nil {
		maps.Copy(set, obj.Labels)
	}
	set["kubernetes.io/metadata.name"] = namespace
	return set
}

// serves reports whether the listener opens.
func (l *listener) serves() bool {
	return l.known && l.accepted.Status && !l.conflicted.Status && l.gateway.refused == "" &&
		(l.config.Protocol != config.HTTPS || len(l.certificates) > 0)
}

// refuse sets the listener aside; field is below the listener.
func (l *listener) refuse(v *view, field string, reason problem.Reason, format string, args ...any) {
	one := l.problem(field, reason, l.setAside(), format, args...)
	if l.accepted.Status {
		l.accepted = condition(gatewayv1.ListenerConditionAccepted, false, reason, one.Message)
	}
	v.problem(one)
}

// refuseConflict sets the listener aside because of another one.
func (l *listener) refuseConflict(v *view, reason problem.Reason, with *listener) {
	what := fmt.Sprintf("hostname %q", l.config.Hostname)
	wayOut := "give each its own hostname or port"
	if reason == problem.ProtocolConflict {
		what, wayOut = fmt.Sprintf("protocol %s", l.config.Protocol), "give each protocol its own port"
	}
	rule := "none of them opens"
	if with.gateway != l.gateway {
		rule = "the older Gateway keeps it"
	}
	one := l.problem("", reason, l.setAside(), "%s on port %d conflicts with listener %s (%s %q); %s: %s", what, l.config.Port,
		with.config.Name, with.config.Protocol, with.config.Hostname, rule, wayOut)
	l.conflicted = condition(gatewayv1.ListenerConditionConflicted, true, reason, one.Message)
	if l.accepted.Status {
		l.accepted = condition(gatewayv1.ListenerConditionAccepted, false, reason, one.Message)
	}
	v.problem(one)
}

// unresolved records a reference that does not resolve; the listener may go on without it.
func (l *listener) unresolved(v *view, field string, reason problem.Reason, setAside, format string, args ...any) {
	one := l.problem(field, reason, setAside, format, args...)
	if l.resolved.Status {
		l.resolved = condition(gatewayv1.ListenerConditionResolvedRefs, false, reason, one.Message)
	}
	v.problem(one)
}

func (l *listener) problem(field string, reason problem.Reason, setAside, format string, args ...any) problem.Problem {
	path := fmt.Sprintf("spec.listeners[%d]", l.index)
	if field != "" {
		path += "." + field
	}
	return gatewayProblem(l.gateway.obj, path, reason, setAside, format, args...)
}

func (l *listener) setAside() string { return "listener " + string(l.spec.Name) }

// outcome is the listener's, under its Gateway.
func (l *listener) outcome() plan.Outcome {
	conditions := []plan.Condition{l.accepted, l.conflicted, l.resolved}
	if l.overlaps != "" {
		conditions = append(conditions, condition(gatewayv1.ListenerConditionOverlappingTLSConfig, true,
			gatewayv1.ListenerReasonOverlappingHostnames, l.overlaps))
	}
	return plan.Outcome{
		Object: l.config.Origin, Parent: l.gateway.origin, Conditions: conditions, AttachedRoutes: l.attached, SupportedKinds: l.kinds,
	}
}
