package status

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/gateway/config"
)

// The most entries that Gateway API lets a status have.
const (
	maxConditions      = 8
	maxFeatures        = 64
	maxAddresses       = 16
	maxParents         = 32
	maxPolicyAncestors = 16
	maxBackendAncestor = 32
)

// view is what a status is made from.
type view struct {
	// controller is the name that this controller's entries carry.
	controller gatewayv1.GatewayController
	features   []string
	// serving says what is known of the proxies of a Gateway, "namespace/name".
	serving func(gateway string) Serving
	now     metav1.Time
	// newest is the generation of the object whose status is made; desired sets it.
	newest int64
}

// fields are the fields of a status that are to be written, by their JSON names. A field that is as it should be is missing.
type fields map[string]any

// set adds a field when it is to change.
func set[T any](f fields, name string, before, after T) {
	if !equality.Semantic.DeepEqual(before, after) {
		f[name] = after
	}
}

// desired returns what to write into the status of an object so that it tells the outcomes: nothing when it does already. The object is
// not changed. What others wrote stays: conditions of types that are not this controller's, entries of other controllers.
//
// An object without outcomes is none of this controller's business, but it may have been: its entries in the lists that name their
// controller are taken out again.
func (v *view) desired(object metav1.Object, outcomes []plan.Outcome) fields {
	f := fields{}
	v.newest = object.GetGeneration()
	switch o := object.(type) {
	case *gatewayv1.GatewayClass:
		v.class(f, o, outcomes)
	case *gatewayv1.Gateway:
		v.gateway(f, o, outcomes)
	case *gatewayv1.ListenerSet:
		v.listenerSet(f, o, outcomes)
	case *gatewayv1.HTTPRoute:
		v.route(f, o, o.Spec.CommonRouteSpec, o.Status.RouteStatus, outcomes)
	case *gatewayv1.GRPCRoute:
		v.route(f, o, o.Spec.CommonRouteSpec, o.Status.RouteStatus, outcomes)
	case *gatewayv1.TLSRoute:
		v.route(f, o, o.Spec.CommonRouteSpec, o.Status.RouteStatus, outcomes)
	case *gatewayv1.TCPRoute:
		v.route(f, o, o.Spec.CommonRouteSpec, o.Status.RouteStatus, outcomes)
	case *gatewayv1.UDPRoute:
		v.route(f, o, o.Spec.CommonRouteSpec, o.Status.RouteStatus, outcomes)
	case *gatewayv1.BackendTLSPolicy:
		v.policy(f, o.Status.Ancestors, outcomes)
	case *gatewayxv1alpha1.XBackendTrafficPolicy:
		v.policy(f, o.Status.Ancestors, outcomes)
	case *gatewayxv1alpha1.XTelemetryPolicy:
		v.policy(f, o.Status.Ancestors, outcomes)
	case *gatewayxv1alpha1.XBackend:
		v.backend(f, o.Status.Ancestors, outcomes)
	}
	return f
}

func (v *view) class(f fields, o *gatewayv1.GatewayClass, outcomes []plan.Outcome) {
	if len(outcomes) == 0 {
		return
	}
	set(f, "conditions", o.Status.Conditions, v.merge(o.Status.Conditions, outcomes[0].Conditions, outcomes[0].Object.Generation))
	var features []gatewayv1.SupportedFeature
	for _, name := range v.features[:min(len(v.features), maxFeatures)] {
		features = append(features, gatewayv1.SupportedFeature{Name: gatewayv1.FeatureName(name)})
	}
	set(f, "supportedFeatures", o.Status.SupportedFeatures, features)
}

// entry is one element of status.parents or status.ancestors.
type entry struct {
	ref        gatewayv1.ParentReference
	controller gatewayv1.GatewayController
	conditions []metav1.Condition
}

func (v *view) route(f fields, o metav1.Object, spec gatewayv1.CommonRouteSpec, status gatewayv1.RouteStatus, outcomes []plan.Outcome) {
	before := make([]entry, 0, len(status.Parents))
	for _, p := range status.Parents {
		before = append(before, entry{p.ParentRef, p.ControllerName, p.Conditions})
	}
	refs := make([]gatewayv1.ParentReference, len(outcomes))
	for i := range outcomes {
		refs[i] = parentRef(&outcomes[i], spec.ParentRefs, o.GetNamespace())
	}
	after := []gatewayv1.RouteParentStatus{}
	for _, e := range v.entries(before, refs, outcomes, maxParents) {
		after = append(after, gatewayv1.RouteParentStatus{ParentRef: e.ref, ControllerName: e.controller, Conditions: e.conditions})
	}
	set(f, "parents", status.Parents, after)
}

func (v *view) policy(f fields, ancestors []gatewayv1.PolicyAncestorStatus, outcomes []plan.Outcome) {
	before := make([]entry, 0, len(ancestors))
	for _, a := range ancestors {
		before = append(before, entry{a.AncestorRef, a.ControllerName, a.Conditions})
	}
	after := []gatewayv1.PolicyAncestorStatus{}
	for _, e := range v.entries(before, ancestorRefs(outcomes), outcomes, maxPolicyAncestors) {
		after = append(after, gatewayv1.PolicyAncestorStatus{AncestorRef: e.ref, ControllerName: e.controller, Conditions: e.conditions})
	}
	set(f, "ancestors", ancestors, after)
}

func (v *view) backend(f fields, ancestors []gatewayxv1alpha1.BackendAncestorStatus, outcomes []plan.Outcome) {
	before := make([]entry, 0, len(ancestors))
	for _, a := range ancestors {
		before = append(before, entry{a.AncestorRef, a.ControllerName, a.Conditions})
	}
	after := []gatewayxv1alpha1.BackendAncestorStatus{}
	for _, e := range v.entries(before, ancestorRefs(outcomes), outcomes, maxBackendAncestor) {
		after = append(after, gatewayxv1alpha1.BackendAncestorStatus{AncestorRef: e.ref, ControllerName: e.controller, Conditions: e.conditions})
	}
	set(f, "ancestors", ancestors, after)
}

// entries returns the list that tells the outcomes: entries of other controllers as they are and where they are, this controller's brought
// up to date, those without an outcome left out, new ones at the end as far as there is room.
func (v *view) entries(before []entry, refs []gatewayv1.ParentReference, outcomes []plan.Outcome, most int) []entry {
	told := make([]bool, len(outcomes))
	after := make([]entry, 0, len(before)+len(outcomes))
	for _, e := range before {
		if e.controller != v.controller {
			after = append(after, e)
			continue
		}
		i := slices.IndexFunc(refs, func(ref gatewayv1.ParentReference) bool { return equality.Semantic.DeepEqual(ref, e.ref) })
		if i < 0 || told[i] {
			continue
		}
		told[i] = true
		e.conditions = v.merge(e.conditions, outcomes[i].Conditions, outcomes[i].Object.Generation)
		after = append(after, e)
	}
	for i := range outcomes {
		if told[i] || len(after) >= most || slices.ContainsFunc(refs[:i], func(ref gatewayv1.ParentReference) bool {
			return equality.Semantic.DeepEqual(ref, refs[i])
		}) {
			continue
		}
		after = append(after, entry{refs[i], v.controller, v.merge(nil, outcomes[i].Conditions, outcomes[i].Object.Generation)})
	}
	return after
}

// parentRef returns the reference of a route that an outcome answers: as the route has it, or, for a Gateway that takes the route by
// default and when the route was changed since, made from the parent.
func parentRef(o *plan.Outcome, refs []gatewayv1.ParentReference, namespace string) gatewayv1.ParentReference {
	if o.ParentRef >= 0 && o.ParentRef < len(refs) {
		ref := refs[o.ParentRef]
		in := namespace
		if ref.Namespace != nil {
			in = string(*ref.Namespace)
		}
		if string(ref.Name) == o.Parent.Name && in == o.Parent.Namespace {
			return ref
		}
	}
	return reference(o.Parent)
}

func ancestorRefs(outcomes []plan.Outcome) []gatewayv1.ParentReference {
	refs := make([]gatewayv1.ParentReference, len(outcomes))
	for i := range outcomes {
		refs[i] = reference(outcomes[i].Parent)
	}
	return refs
}

// reference names a Gateway or ListenerSet, with the fields set that the API server would fill in.
func reference(o config.Origin) gatewayv1.ParentReference {
	group, kind, namespace := gatewayv1.Group(gatewayv1.GroupName), gatewayv1.Kind(o.Kind), gatewayv1.Namespace(o.Namespace)
	ref := gatewayv1.ParentReference{Group: &group, Kind: &kind, Namespace: &namespace, Name: gatewayv1.ObjectName(o.Name)}
	if o.Rule != "" {
		section := gatewayv1.SectionName(o.Rule)
		ref.SectionName = &section
	}
	return ref
}

// merge returns conditions in which those of an object's outcome stand at their place. A condition keeps its time while its status stays.
// One that was written for a newer generation than the outcome knows is left alone (Gateway API: "MUST NOT perform the update on that
// Condition"), unless the object itself never had that generation: such a condition came from another object of the name, and nobody else
// would ever mend it. Conditions of other types stay, but those of this controller that the outcome no longer has are taken out.
func (v *view) merge(before []metav1.Condition, ours []plan.Condition, generation int64) []metav1.Condition {
	after := make([]metav1.Condition, 0, len(before)+len(ours))
	for _, c := range before {
		i := slices.IndexFunc(ours, func(o plan.Condition) bool { return o.Type == c.Type })
		newer := c.ObservedGeneration > generation && c.ObservedGeneration <= v.newest
		switch {
		case i >= 0 && newer:
			after = append(after, c)
		case i >= 0:
			after = append(after, v.condition(ours[i], generation, &c))
		case !passing(c.Type) || newer:
			after = append(after, c)
		}
	}
	for _, o := range ours {
		if len(after) < maxConditions && !slices.ContainsFunc(before, func(c metav1.Condition) bool { return c.Type == o.Type }) {
			after = append(after, v.condition(o, generation, nil))
		}
	}
	return after
}

// passing reports whether a condition's type is one of this controller's that an object has at times only.
func passing(conditionType string) bool {
	switch conditionType {
	case string(gatewayv1.RouteConditionPartiallyInvalid), string(gatewayv1.ListenerConditionConflicted),
		string(gatewayv1.ListenerConditionOverlappingTLSConfig), string(gatewayv1.GatewayConditionInsecureFrontendValidationMode):
		return true
	}
	return false
}

// maxMessage bounds a condition's message, which may quote what a user wrote; the API server takes 32768 bytes.
const maxMessage = 4096

func (v *view) condition(c plan.Condition, generation int64, before *metav1.Condition) metav1.Condition {
	status := metav1.ConditionFalse
	if c.Status {
		status = metav1.ConditionTrue
	}
	message := c.Message
	if len(message) > maxMessage {
		// A character cut in two would come back as another one, and the condition would differ for ever.
		message = strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
	}
	out := metav1.Condition{
		Type: c.Type, Status: status, Reason: c.Reason, Message: message, ObservedGeneration: generation, LastTransitionTime: v.now,
	}
	if before != nil && before.Status == status {
		out.LastTransitionTime = before.LastTransitionTime
	}
	return out
}

// programmed is the condition that no translator can give: it takes the proxies' word.
func programmed(status bool, reason, format string, args ...any) plan.Condition {
	return plan.Condition{Type: string(gatewayv1.GatewayConditionProgrammed), Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// find returns the condition of a type, or nil.
func find(list []plan.Condition, conditionType string) *plan.Condition {
	for i := range list {
		if list[i].Type == conditionType {
			return &list[i]
		}
	}
	return nil
}
