package gatewayapi

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// The defaults of a retry constraint (Gateway API: RetryConstraint).
const (
	defaultBudgetPercent    = 20
	defaultBudgetInterval   = 10 * time.Second
	defaultMinRetries       = 10
	defaultMinRetryInterval = time.Second
)

// trafficPolicy is one XBackendTrafficPolicy: a bound for the retries to a backend, and sessions that persist on its endpoints.
type trafficPolicy struct {
	obj         *gatewayxv1alpha1.XBackendTrafficPolicy
	budget      *config.RetryBudget
	persistence *config.Persistence
	// wrong is why the policy is set aside; its reason is "" when it is not.
	wrong fault
	// lost are the targets that an older policy has; found anew each time that the policies change.
	lost []string
}

// trafficPolicies are the policies in order of precedence, and by target those that count.
type trafficPolicies struct {
	byName  map[types.NamespacedName]*trafficPolicy
	order   []*trafficPolicy
	winners map[leadKey]*trafficPolicy
}

// buildTrafficPolicies brings the policies up to date. One whose object is the same stays the same pointer.
func (p *pass) buildTrafficPolicies() {
	if !p.changed.any(xBackendTrafficPolicies) {
		return
	}
	before := p.trafficPolicies.byName
	next := trafficPolicies{byName: make(map[types.NamespacedName]*trafficPolicy), winners: make(map[leadKey]*trafficPolicy)}
	for _, key := range byAge(p.st.XBackendTrafficPolicies) {
		obj := p.st.XBackendTrafficPolicies[key]
		policy := before[key]
		if policy == nil || policy.obj != obj {
			policy = p.readTrafficPolicy(obj)
		}
		policy.lost = nil
		next.byName[key] = policy
		next.order = append(next.order, policy)
		for _, ref := range obj.Spec.TargetRefs {
			target := leadKey{string(ref.Kind), obj.Namespace, string(ref.Name)}
			if !isBackendRef(ref.Group, ref.Kind) {
				continue
			}
			if winner := next.winners[target]; winner == nil {
				next.winners[target] = policy
			} else if winner != policy {
				policy.lost = append(policy.lost, fmt.Sprintf("%s %s has XBackendTrafficPolicy %s already, which takes precedence", ref.Kind,
					ref.Name, winner.obj.Name))
			}
		}
	}
	p.Translator.trafficPolicies = next
}

func isBackendRef(group gatewayv1.Group, kind gatewayv1.Kind) bool {
	return isServiceRef(group, kind) || group == experimentalGroup && kind == "XBackend"
}

func (p *pass) readTrafficPolicy(obj *gatewayxv1alpha1.XBackendTrafficPolicy) *trafficPolicy {
	policy := &trafficPolicy{obj: obj}
	if spec := obj.Spec.RetryConstraint; spec != nil {
		policy.budget, policy.wrong = retryBudget(spec)
	}
	//lint:ignore SA1019 it is served for as long as the API has it
	if spec := obj.Spec.SessionPersistence; spec != nil && policy.wrong.reason == "" {
		policy.persistence, policy.wrong = p.sessionPersistence(spec,
			sessionOwner{kind: "XBackendTrafficPolicy", namespace: obj.Namespace, name: obj.Name, uid: obj.UID})
		policy.wrong.field = ".sessionPersistence" + policy.wrong.field
	}
	if policy.wrong.reason != "" {
		policy.budget, policy.persistence = nil, nil
		policy.wrong = policy.wrong.with("spec")
	}
	return policy
}

// retryBudget reads a retry constraint.
func retryBudget(spec *gatewayxv1alpha1.RetryConstraint) (*config.RetryBudget, fault) {
	out := &config.RetryBudget{Percent: defaultBudgetPercent, Interval: defaultBudgetInterval, MinRetries: defaultMinRetries,
		MinInterval: defaultMinRetryInterval}
	invalid := func(field, format string, args ...any) (*config.RetryBudget, fault) {
		return nil, fault{".retryConstraint" + field, problem.Invalid, fmt.Sprintf(format, args...)}
	}
	interval := func(spec *gatewayv1.Duration, into *time.Duration) error {
		if spec == nil {
			return nil
		}
		d, err := parseDuration(string(*spec))
		if err == nil && (d <= 0 || d > time.Hour) {
			err = fmt.Errorf("%s is no interval that can be counted over; use more than 0s and at most 1h", *spec)
		}
		*into = d
		return err
	}
	if b := spec.Budget; b != nil {
		if b.Percent != nil {
			out.Percent = *b.Percent
		}
		if err := interval(b.Interval, &out.Interval); err != nil {
			return invalid(".budget.interval", "%v", err)
		}
		if out.Percent < 0 || out.Percent > 100 {
			return invalid(".budget.percent", "%d percent is not between 0 and 100", out.Percent)
		}
	}
	if r := spec.MinRetryRate; r != nil {
		if r.Count != nil {
			out.MinRetries = *r.Count
		}
		if err := interval(r.Interval, &out.MinInterval); err != nil {
			return invalid(".minRetryRate.interval", "%v", err)
		}
		if out.MinRetries < 0 {
			return invalid(".minRetryRate.count", "%d is no number of retries", out.MinRetries)
		}
	}
	return out, fault{}
}

// trafficPolicyOf returns the policy for a target, nil when there is none. Streams have neither requests nor retries.
func (p *pass) trafficPolicyOf(key targetKey) *trafficPolicy {
	if key.carries == carriesTCP || key.carries == carriesUDP {
		return nil
	}
	return p.trafficPolicies.winners[leadKey{key.kind, key.namespace, key.name}]
}

// regulateBy applies a policy to the target. What an XBackend says of its own sessions counts before the policy.
func (t *target) regulateBy(policy *trafficPolicy) {
	t.cluster.RetryBudget = policy.budget
	if t.cluster.Persistence == nil {
		t.cluster.Persistence = policy.persistence
	}
}

// reportTrafficPolicies says what became of the policies: under each Gateway that leads to a target of theirs, and as problems.
func (p *pass) reportTrafficPolicies() {
	for _, policy := range p.trafficPolicies.order {
		origin := p.origin("XBackendTrafficPolicy", policy.obj.Namespace, policy.obj.Name, policy.obj.Generation, "")
		var targets []leadKey
		var missing []string
		for i, ref := range policy.obj.Spec.TargetRefs {
			name := types.NamespacedName{Namespace: policy.obj.Namespace, Name: string(ref.Name)}
			targets = append(targets, leadKey{string(ref.Kind), name.Namespace, name.Name})
			switch {
			case !isBackendRef(ref.Group, ref.Kind):
				missing = append(missing, fmt.Sprintf("spec.targetRefs[%d]: kind %q in group %q is no backend; name a Service or an XBackend", i,
					ref.Kind, ref.Group))
			case ref.Kind == "Service" && p.st.Services[name] == nil, ref.Kind == "XBackend" && p.st.XBackends[name] == nil:
				missing = append(missing, fmt.Sprintf("spec.targetRefs[%d]: %s %s does not exist; create it or mend the name", i, ref.Kind, ref.Name))
			}
		}
		accepted := condition(gatewayv1.PolicyConditionAccepted, true, gatewayv1.PolicyReasonAccepted, "")
		switch {
		case len(policy.lost) > 0:
			accepted = condition(gatewayv1.PolicyConditionAccepted, false, gatewayv1.PolicyReasonConflicted, strings.Join(policy.lost, "; "))
		case policy.wrong.reason != "":
			accepted = condition(gatewayv1.PolicyConditionAccepted, false, policy.wrong.reason, policy.wrong.message)
		case len(missing) > 0:
			accepted = condition(gatewayv1.PolicyConditionAccepted, false, gatewayv1.PolicyReasonTargetNotFound, strings.Join(missing, "; "))
		}
		for _, g := range p.leads.gateways(targets) {
			p.b.Outcome(plan.Outcome{Object: origin, Parent: g.origin, Conditions: []plan.Condition{accepted}, AttachedRoutes: -1})
		}
		for _, lost := range policy.lost {
			p.aside(origin, "spec.targetRefs", problem.Conflicted, "the policy for that target", lost)
		}
		for _, m := range missing {
			field, message, _ := strings.Cut(m, ": ")
			p.aside(origin, field, problem.TargetNotFound, "the policy for that target", message)
		}
		if f := policy.wrong; f.reason != "" {
			p.aside(origin, f.field, f.reason, "the policy", f.message)
		}
	}
}

// aside reports that something of an object is set aside.
func (p *pass) aside(origin config.Origin, field string, reason problem.Reason, what, message string) {
	p.report([]problem.Problem{{Kind: origin.Kind, Namespace: origin.Namespace, Name: origin.Name, Field: field, Reason: reason,
		Message: message, SetAside: what}})
}
