package gatewayapi

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/apis/v1alpha1"
	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// view is the Gateways of this controller and their listeners. A new view means that any route may attach differently.
type view struct {
	gateways map[types.NamespacedName]*gateway
	// foreign are the Gateways of other controllers.
	foreign map[types.NamespacedName]bool
	// defaults are the default Gateways, sorted.
	defaults []*gateway
	// sets are the ListenerSets under those Gateways; setOrder is sets in order of precedence.
	sets     map[types.NamespacedName]*listenerSet
	setOrder []*listenerSet
	// planned are what is to be run for the accepted Gateways.
	planned []plan.Gateway
	// listeners of all gateways, by gateway and then in the order of the object; then those of ListenerSets.
	listeners []*listener
	// outcomes of GatewayClasses and Gateways; those of listeners count routes and are made last.
	outcomes []plan.Outcome
	problems []problem.Problem
	// uses are the references that the filters of listeners follow: as long as they lead to the same, the view is the same.
	uses []listenerUse
	// wants are what its references lead to, see pass.want.
	wants []config.Origin
	// clients are the certificates that its Gateways present to backends, by name.
	clients map[string]*config.Certificate
	// parameters are what GatewayClasses say of how their Gateways are run, by class.
	parameters map[string]v1alpha1.GatewayParametersSpec
	// places of the objects that the view was made of: their Origins go stale when an object moves within its file.
	places map[objectName]place
}

type objectName struct{ kind, namespace, name string }

// class is what a GatewayClass means for its Gateways.
type class int

const (
	classMissing class = iota
	classForeign
	classRefused
	classAccepted
)

// buildView makes the view anew when an object that it reads changed or moved.
func (p *pass) buildView() {
	changed := p.changed.any(gatewayClasses, gateways, listenerSets, gatewayParameters, namespaces, referenceGrants, secrets, configMaps,
		clusterTrustBundles)
	if p.view != nil && !changed && !p.moved(p.view) && !p.viewLeadsElsewhere(p.view) {
		return
	}
	v := &view{
		gateways: make(map[types.NamespacedName]*gateway),
		foreign:  make(map[types.NamespacedName]bool),
		sets:     make(map[types.NamespacedName]*listenerSet),
		places:   make(map[objectName]place),
	}
	defer p.collectWants(&v.wants)()
	classes := p.buildClasses(v)
	for _, key := range sortedKeys(p.st.Gateways) {
		obj := p.st.Gateways[key]
		name := string(obj.Spec.GatewayClassName)
		switch classes[name] {
		case classForeign:
			v.foreign[key] = true
		case classMissing:
			v.problem(gatewayProblem(obj, "spec.gatewayClassName", problem.UnknownClass, "the object",
				"GatewayClass %q does not exist; create it or name one whose spec.controllerName is %q", name, p.opts.ControllerName))
		case classRefused:
			// It is this controller's: its status has to say that nothing serves it any more.
			p.buildGateway(v, key, obj)
			v.gateways[key].refuse(v, "spec.gatewayClassName", problem.InvalidParameters, "GatewayClass %q is not accepted; mend the class first", name)
		case classAccepted:
			p.buildGateway(v, key, obj)
		}
	}
	p.buildListenerSets(v)
	p.settleConflicts(v)
	v.judgeListenerSets()
	v.planGateways()
	for _, key := range sortedKeys(p.st.Gateways) {
		if g, ok := v.gateways[key]; ok {
			if g.isDefault() {
				v.defaults = append(v.defaults, g)
			}
			v.outcomes = append(v.outcomes, g.outcome())
		}
	}
	for _, set := range v.setOrder {
		v.outcomes = append(v.outcomes, set.outcome())
	}
	p.forgetCertificates()
	p.Translator.view = v
}

// buildClasses judges the GatewayClasses of this controller.
func (p *pass) buildClasses(v *view) map[string]class {
	classes := make(map[string]class)
	for _, key := range sortedKeys(p.st.GatewayClasses) {
		obj := p.st.GatewayClasses[key]
		if string(obj.Spec.ControllerName) != p.opts.ControllerName {
			classes[obj.Name] = classForeign
			continue
		}
		classes[obj.Name] = classAccepted
		accepted := condition(gatewayv1.GatewayClassConditionStatusAccepted, true, gatewayv1.GatewayClassReasonAccepted, "")
		if message := p.classParameters(v, obj); message != "" {
			classes[obj.Name] = classRefused
			accepted = condition(gatewayv1.GatewayClassConditionStatusAccepted, false,
				gatewayv1.GatewayClassReasonInvalidParameters, message)
			v.problem(problem.Problem{Kind: "GatewayClass", Name: obj.Name, Field: "spec.parametersRef",
				Reason: problem.InvalidParameters, Message: message, SetAside: "the object"})
		}
		v.places[objectName{"GatewayClass", "", obj.Name}] = p.place("GatewayClass", "", obj.Name)
		v.outcomes = append(v.outcomes, plan.Outcome{
			Object:         p.origin("GatewayClass", "", obj.Name, obj.Generation, ""),
			Conditions:     []plan.Condition{accepted},
			AttachedRoutes: -1,
		})
	}
	return classes
}

// moved reports whether an object of the view stands elsewhere now.
func (p *pass) moved(v *view) bool {
	for name, at := range v.places {
		if p.place(name.kind, name.namespace, name.name) != at {
			return true
		}
	}
	return false
}

// settleConflicts refuses listeners that claim what another one has.
func (p *pass) settleConflicts(v *view) {
	var claims []plan.Claim
	var claimants []*listener
	for _, l := range v.listeners {
		// A protocol that is not served claims nothing (Gateway API: GatewaySpec.listeners on TCP).
		if !l.known || l.gateway.refused != "" || l.set != nil && !l.set.accepted.Status {
			continue
		}
		claim := plan.Claim{
			Gateway: l.gateway.origin, Created: l.gateway.created, Listener: string(l.spec.Name),
			Addresses: l.config.Addresses, Port: l.config.Port, Protocol: l.config.Protocol, Hostname: l.config.Hostname,
		}
		if l.set != nil {
			claim.Set, claim.SetCreated = l.set.origin, l.set.created
		}
		claims = append(claims, claim)
		claimants = append(claimants, l)
	}
	refused := plan.Conflicts(claims, p.opts.Standalone)
	for i, conflict := range refused {
		if conflict.Reason != "" {
			claimants[i].refuseConflict(v, conflict.Reason, claimants[conflict.With])
		}
	}
	for i, with := range plan.Overlaps(claims, refused, p.opts.Standalone) {
		if with >= 0 {
			claimants[i].overlaps = fmt.Sprintf("hostname %q shares hosts with %s; requests for a host of the other listener on one connection are "+
				"answered 421", claimants[i].config.Hostname, claimants[with].describeTo(claimants[i]))
		}
	}
	for i, with := range plan.Shadows(claims, refused, p.opts.Standalone) {
		if with >= 0 {
			v.problem(claimants[i].problem("port", problem.PortUnavailable, fmt.Sprintf("HTTP/3 on port %d", claims[i].Port),
				"HTTP/3 needs the UDP port %d, which %s has; clients use HTTP/2 instead, or give one of the two another port",
				claims[i].Port, claimants[with].describeTo(claimants[i])))
		}
	}
}

func (v *view) problem(list ...problem.Problem) { v.problems = append(v.problems, list...) }

// condition makes a plan.Condition from the typed words of Gateway API.
func condition[T, R ~string](kind T, status bool, reason R, message string) plan.Condition {
	return plan.Condition{Type: string(kind), Status: status, Reason: string(reason), Message: message}
}
