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

// listener is one listener of a Gateway, which stands in the Gateway itself or in one of its ListenerSets.
type listener struct {
	gateway *gateway
	// set is the ListenerSet that it stands in, nil for the Gateway itself.
	set *listenerSet
	// owner is the object that it stands in, with the listener's name as Rule.
	owner  config.Origin
	index  int
	spec   *gatewayv1.Listener
	config config.Listener
	// known is whether the protocol is one that is served.
	known bool
	// kinds are the route kinds that may attach.
	kinds []string
	from  gatewayv1.FromNamespaces
	// selector chooses namespaces when from is Selector; nil admits none.
	selector     labels.Selector
	certificates []*config.Certificate
	// targets are those that the listener itself leads to, each once: by its filters.
	targets    []*target
	accepted   plan.Condition
	conflicted plan.Condition
	resolved   plan.Condition
	// overlaps is the message of the condition OverlappingTLSConfig, "" without it.
	overlaps string

	// Of the pass: what is built of the listener, nil if it does not serve, and how many accepted routes attach to it.
	built    *config.Listener
	attached int
}

// optionPrefix marks the listener TLS options that are meant for this gateway.
const optionPrefix = "gatehouse.dev/"

// buildListener judges one listener by itself; conflicts with others come after. set is nil for a listener of the Gateway's own.
func (p *pass) buildListener(v *view, g *gateway, set *listenerSet, i int, spec *gatewayv1.Listener) *listener {
	l := &listener{
		gateway: g, set: set, index: i, spec: spec, owner: g.origin,
		accepted:   condition(gatewayv1.ListenerConditionAccepted, true, gatewayv1.ListenerReasonAccepted, ""),
		conflicted: condition(gatewayv1.ListenerConditionConflicted, false, gatewayv1.ListenerReasonNoConflicts, ""),
		resolved:   condition(gatewayv1.ListenerConditionResolvedRefs, true, gatewayv1.ListenerReasonResolvedRefs, ""),
	}
	key := g.obj.Namespace + "/" + g.obj.Name
	l.config = config.Listener{Gateway: key, Name: key + "/" + string(spec.Name), Port: uint16(spec.Port)}
	if set != nil {
		l.owner = set.origin
		l.config.Name = key + "/" + set.obj.Namespace + "/" + set.obj.Name + "/" + string(spec.Name)
	}
	l.owner.Rule = string(spec.Name)
	l.config.Origin = l.owner
	if p.opts.Standalone {
		// In a cluster a proxy has its pod to itself; the addresses are for who runs it (plan.Gateway).
		l.config.Addresses = g.addresses
	}
	if spec.Hostname != nil && spec.Protocol != gatewayv1.TCPProtocolType && spec.Protocol != gatewayv1.UDPProtocolType {
		l.config.Hostname = strings.ToLower(string(*spec.Hostname))
	}
	l.readProtocol(v)
	l.readKinds(v)
	l.readNamespaces(v)
	if l.known {
		p.readListenerFilters(v, l)
		if l.terminates() {
			p.readTLS(v, l)
		}
	}
	return l
}

// tlsMode is the listener's spec.tls.mode.
func (l *listener) tlsMode() gatewayv1.TLSModeType {
	if l.spec.TLS != nil && l.spec.TLS.Mode != nil {
		return *l.spec.TLS.Mode
	}
	return gatewayv1.TLSModeTerminate
}

// terminates reports whether the gateway opens the TLS of the listener's connections.
func (l *listener) terminates() bool {
	return l.config.Protocol == config.HTTPS || l.config.Protocol == config.TLS && l.tlsMode() == gatewayv1.TLSModeTerminate
}

// readProtocol takes a protocol on a port and hostname that can be served.
func (l *listener) readProtocol(v *view) {
	mode := l.tlsMode()
	if err := routing.ValidateHost(l.config.Hostname); err != nil {
		l.refuse(v, "hostname", problem.UnsupportedValue, "%v", err)
		return
	}
	protocol, known := map[gatewayv1.ProtocolType]config.Protocol{
		gatewayv1.HTTPProtocolType: config.HTTP, gatewayv1.HTTPSProtocolType: config.HTTPS, gatewayv1.TLSProtocolType: config.TLS,
		gatewayv1.TCPProtocolType: config.TCP, gatewayv1.UDPProtocolType: config.UDP,
	}[l.spec.Protocol]
	switch {
	case l.spec.Port < 1 || l.spec.Port > 65535:
		l.refuse(v, "port", problem.UnsupportedValue, "port %d is not between 1 and 65535", l.spec.Port)
	case !known:
		l.refuse(v, "protocol", problem.UnsupportedProtocol, "protocol %q is not served by this version; use HTTP, HTTPS, TLS, TCP or UDP",
			l.spec.Protocol)
	case protocol == config.HTTPS && mode != gatewayv1.TLSModeTerminate:
		l.refuse(v, "tls.mode", problem.UnsupportedProtocol, "HTTPS with mode %s is not served; use mode Terminate, or protocol TLS", mode)
	case protocol == config.TLS && mode != gatewayv1.TLSModeTerminate && mode != gatewayv1.TLSModePassthrough:
		l.refuse(v, "tls.mode", problem.UnsupportedValue, "mode %q is not known; use Terminate or Passthrough", mode)
	default:
		l.known, l.config.Protocol = true, protocol
	}
}

// kindsOf are the route kinds that attach to listeners of a protocol.
func kindsOf(protocol config.Protocol) []string {
	switch protocol {
	case config.HTTP, config.HTTPS:
		return []string{"GRPCRoute", "HTTPRoute"}
	case config.TLS:
		return []string{"TLSRoute"}
	case config.TCP:
		return []string{"TCPRoute"}
	case config.UDP:
		return []string{"UDPRoute"}
	}
	return nil
}

// readKinds reads allowedRoutes.kinds. Without any, the protocol decides.
func (l *listener) readKinds(v *view) {
	if !l.known {
		return
	}
	served := kindsOf(l.config.Protocol)
	if l.spec.AllowedRoutes == nil || len(l.spec.AllowedRoutes.Kinds) == 0 {
		l.kinds = served
		return
	}
	for i, kind := range l.spec.AllowedRoutes.Kinds {
		switch {
		case (kind.Group != nil && *kind.Group != gatewayv1.GroupName) || !slices.Contains(served, string(kind.Kind)):
			field := fmt.Sprintf("allowedRoutes.kinds[%d]", i)
			l.unresolved(v, field, problem.InvalidRouteKinds, "routes of that kind",
				"kind %q cannot attach to a listener of protocol %s; use %s", kind.Kind, l.spec.Protocol, strings.Join(served, " or "))
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
		return namespace == l.owner.Namespace
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
	return l.known && l.accepted.Status && !l.conflicted.Status && l.gateway.refused == "" && (l.set == nil || l.set.accepted.Status) &&
		(!l.terminates() || len(l.certificates) > 0)
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
		if with.config.Protocol == l.config.Protocol {
			wayOut = "give each its own port"
		}
	}
	rule := "none of them opens"
	switch {
	case with.gateway != l.gateway:
		rule = "the older Gateway keeps it"
	case with.set != l.set && with.set != nil:
		rule = "the older ListenerSet keeps it"
	case with.set != l.set:
		rule = "the Gateway's own keeps it"
	}
	one := l.problem("", reason, l.setAside(), "%s on port %d conflicts with %s; %s: %s", what, l.config.Port,
		with.describeTo(l), rule, wayOut)
	l.conflicted = condition(gatewayv1.ListenerConditionConflicted, true, reason, one.Message)
	if l.accepted.Status {
		l.accepted = condition(gatewayv1.ListenerConditionAccepted, false, reason, one.Message)
	}
	v.problem(one)
}

// describeTo names the listener in what the owner of another one reads. Who may add listeners to a Gateway need not know who else does
// (Gateway API: ListenerSetSpec.listeners).
func (l *listener) describeTo(reader *listener) string {
	if reader.set != nil && l.set != nil && l.set != reader.set {
		return "a listener of another ListenerSet"
	}
	return fmt.Sprintf("listener %s (%s %q)", l.config.Name, l.config.Protocol, l.config.Hostname)
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
	return problem.Problem{Kind: l.owner.Kind, Namespace: l.owner.Namespace, Name: l.owner.Name, Field: path, Reason: reason,
		Message: fmt.Sprintf(format, args...), SetAside: setAside}
}

func (l *listener) setAside() string { return "listener " + string(l.spec.Name) }

// outcome is the listener's, under its Gateway or ListenerSet.
func (l *listener) outcome() plan.Outcome {
	conditions := []plan.Condition{l.accepted, l.conflicted, l.resolved}
	if l.overlaps != "" {
		conditions = append(conditions, condition(gatewayv1.ListenerConditionOverlappingTLSConfig, true,
			gatewayv1.ListenerReasonOverlappingHostnames, l.overlaps))
	}
	parent := l.gateway.origin
	if l.set != nil {
		parent = l.set.origin
	}
	return plan.Outcome{
		Object: l.config.Origin, Parent: parent, Conditions: conditions, AttachedRoutes: l.attached, SupportedKinds: l.kinds,
		Serves: l.built != nil,
	}
}
