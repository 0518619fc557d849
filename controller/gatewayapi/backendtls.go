package gatewayapi

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// tlsPolicy is one BackendTLSPolicy: how the ports of a Service are connected to over TLS. It holds for whoever leads there, HTTPRoutes,
// GRPCRoutes, TCPRoutes, TLSRoutes whose TLS ends here, and filters that ask a Service.
type tlsPolicy struct {
	obj *gatewayv1.BackendTLSPolicy
	// bundles are what its CA certificates were read from, wants what a permitted reference leads to.
	bundles []bundleUse
	wants   []config.Origin
	trust   trust

	// lost are the targets that an older policy has; found anew each time that the policies change.
	lost []string
}

type bundleUse struct {
	key    bundleKey
	object metav1.Object
}

// tlsPolicies are the policies in order of precedence, and by Service and port name those that count.
type tlsPolicies struct {
	byName map[types.NamespacedName]*tlsPolicy
	order  []*tlsPolicy
	// winners are keyed by Service, then by the port's name; "" is for all ports that have none of their own.
	winners map[types.NamespacedName]map[string]*tlsPolicy
}

// buildTLSPolicies brings the policies up to date. One whose object and CA certificates are the same stays the same pointer, which is how
// targets see that nothing changed for them.
func (p *pass) buildTLSPolicies() {
	if !p.changed.any(backendTLSPolicies, configMaps, secrets, clusterTrustBundles) {
		return
	}
	before := p.tlsPolicies.byName
	next := tlsPolicies{byName: make(map[types.NamespacedName]*tlsPolicy), winners: make(map[types.NamespacedName]map[string]*tlsPolicy)}
	for _, key := range byAge(p.st.BackendTLSPolicies) {
		obj := p.st.BackendTLSPolicies[key]
		policy := before[key]
		if policy == nil || policy.obj != obj || !p.sameBundles(policy.bundles) {
			policy = p.readTLSPolicy(obj)
		}
		policy.lost = nil
		next.byName[key] = policy
		next.order = append(next.order, policy)
		for _, ref := range obj.Spec.TargetRefs {
			if !isServiceRef(ref.Group, ref.Kind) {
				continue
			}
			service, section := types.NamespacedName{Namespace: obj.Namespace, Name: string(ref.Name)}, sectionOf(ref)
			if next.winners[service] == nil {
				next.winners[service] = make(map[string]*tlsPolicy)
			}
			if winner := next.winners[service][section]; winner == nil {
				next.winners[service][section] = policy
			} else if winner != policy {
				policy.lost = append(policy.lost, fmt.Sprintf("%s has BackendTLSPolicy %s already, which takes precedence", describeTarget(ref),
					winner.obj.Name))
			}
		}
	}
	p.Translator.tlsPolicies = next
}

// byAge returns the names of policies in order of precedence: the oldest first, then by namespace and name (GEP-713).
func byAge[T metav1.Object](objects source.Objects[T]) []types.NamespacedName {
	keys := sortedKeys(objects)
	slices.SortStableFunc(keys, func(a, b types.NamespacedName) int {
		x, y := objects[a].GetCreationTimestamp(), objects[b].GetCreationTimestamp()
		return x.Compare(y.Time)
	})
	return keys
}

func isServiceRef(group gatewayv1.Group, kind gatewayv1.Kind) bool {
	return group == "" && kind == "Service"
}

func sectionOf(ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) string {
	if ref.SectionName == nil {
		return ""
	}
	return string(*ref.SectionName)
}

func describeTarget(ref gatewayv1.LocalPolicyTargetReferenceWithSectionName) string {
	if section := sectionOf(ref); section != "" {
		return fmt.Sprintf("port %s of %s %s", section, ref.Kind, ref.Name)
	}
	return fmt.Sprintf("%s %s", ref.Kind, ref.Name)
}

// sameBundles reports whether the objects that CA certificates were read from are the same.
func (p *pass) sameBundles(list []bundleUse) bool {
	return !slices.ContainsFunc(list, func(use bundleUse) bool { return p.bundleObject(use.key) != use.object })
}

func (p *pass) readTLSPolicy(obj *gatewayv1.BackendTLSPolicy) *tlsPolicy {
	policy := &tlsPolicy{obj: obj}
	defer p.collectWants(&policy.wants)()
	policy.trust = p.readTrust(obj.Namespace, &obj.Spec.Validation)
	policy.trust = policy.trust.within("spec.validation")
	for _, ref := range obj.Spec.Validation.CACertificateRefs {
		if key, ok := bundleRef(string(ref.Group), string(ref.Kind), obj.Namespace, string(ref.Name)); ok {
			policy.bundles = append(policy.bundles, bundleUse{key, p.bundleObject(key)})
		}
	}
	// An option that is meant for this gateway, or for every one, may demand more than would be done.
	if ours := ownOptions(obj.Spec.Options); len(ours) > 0 {
		policy.trust.tls = nil
		policy.trust.invalid = fault{"spec.options", problem.Invalid, fmt.Sprintf("options %q are not known to this version; remove them", ours)}
	}
	return policy
}

// within puts the field that was read in front of those of the faults.
func (t trust) within(field string) trust {
	if t.invalid.reason != "" {
		t.invalid = t.invalid.with(field)
	}
	list := make([]fault, len(t.unresolved))
	for i, f := range t.unresolved {
		list[i] = f.with(field)
	}
	t.unresolved = list
	return t
}

// ownOptions returns the TLS options that are meant for this gateway: its own prefix, or none, which Gateway API reserves.
func ownOptions(options map[gatewayv1.AnnotationKey]gatewayv1.AnnotationValue) (ours []string) {
	for key := range options {
		if strings.HasPrefix(string(key), optionPrefix) || !strings.Contains(string(key), "/") {
			ours = append(ours, string(key))
		}
	}
	slices.Sort(ours)
	return ours
}

// tlsPolicyOf returns the policy for a port of a Service, nil when there is none. One for the port by name counts before one for the whole
// Service.
func (p *pass) tlsPolicyOf(service types.NamespacedName, port string) *tlsPolicy {
	byPort := p.tlsPolicies.winners[service]
	if policy := byPort[port]; policy != nil {
		return policy
	}
	return byPort[""]
}

// secureBy makes the target of a Service's port one that is connected to over TLS as a policy says. A policy that cannot be followed
// closes the target: neither plaintext nor other CAs may stand in. It is no business of TLS that passes through.
func (t *target) secureBy(policy *tlsPolicy) {
	if policy.trust.tls == nil && t.key.carries == carriesTCP {
		t.closed = true
		return
	}
	if policy.trust.tls == nil {
		t.refuse(problem.InvalidBackend, fmt.Sprintf("BackendTLSPolicy %s/%s cannot be followed: %s", policy.obj.Namespace, policy.obj.Name,
			policy.trust.invalid.message))
		return
	}
	t.cluster.TLS = policy.trust.tls
	t.cluster.Protocol = overTLS(t.cluster.Protocol)
}

// overTLS is what a protocol is over TLS. Where HTTP/1.1 is only what is spoken if nothing is said, ALPN decides.
func overTLS(protocol config.UpstreamProtocol) config.UpstreamProtocol {
	if protocol == config.UpstreamH2C {
		return config.UpstreamHTTP2
	}
	return protocol
}

// conditions are those of a policy under one Gateway. missing are its targets that do not exist.
func (policy *tlsPolicy) conditions(missing []string) []plan.Condition {
	accepted := condition(gatewayv1.PolicyConditionAccepted, true, gatewayv1.PolicyReasonAccepted, "")
	switch {
	case len(policy.lost) > 0:
		accepted = condition(gatewayv1.PolicyConditionAccepted, false, gatewayv1.PolicyReasonConflicted, strings.Join(policy.lost, "; "))
	case policy.trust.invalid.reason != "":
		accepted = condition(gatewayv1.PolicyConditionAccepted, false, policy.trust.invalid.reason, policy.trust.invalid.message)
	case len(missing) > 0:
		accepted = condition(gatewayv1.PolicyConditionAccepted, false, gatewayv1.PolicyReasonTargetNotFound, strings.Join(missing, "; "))
	}
	resolved := condition(gatewayv1.BackendTLSPolicyConditionResolvedRefs, true, gatewayv1.BackendTLSPolicyReasonResolvedRefs, "")
	if len(policy.trust.unresolved) > 0 {
		first := policy.trust.unresolved[0]
		resolved = condition(gatewayv1.BackendTLSPolicyConditionResolvedRefs, false, first.reason, first.message)
	}
	return []plan.Condition{accepted, resolved}
}

// missing are the targets of a policy that do not exist: a Service, a port of it, or a kind that has no ports.
func (p *pass) missingTLSTargets(policy *tlsPolicy) (list []string) {
	for i, ref := range policy.obj.Spec.TargetRefs {
		at := fmt.Sprintf("spec.targetRefs[%d]: ", i)
		if !isServiceRef(ref.Group, ref.Kind) {
			list = append(list, at+fmt.Sprintf("kind %q in group %q is not served; name a Service", ref.Kind, ref.Group))
			continue
		}
		service := p.st.Services[types.NamespacedName{Namespace: policy.obj.Namespace, Name: string(ref.Name)}]
		if service == nil {
			list = append(list, at+fmt.Sprintf("Service %s does not exist", ref.Name))
			continue
		}
		section := sectionOf(ref)
		if section == "" {
			continue
		}
		found := false
		for _, port := range service.Spec.Ports {
			found = found || port.Name == section
		}
		if !found {
			list = append(list, at+fmt.Sprintf("Service %s has no port of the name %s", ref.Name, section))
		}
	}
	return list
}

// reportTLSPolicies says what became of the policies: under each Gateway that leads to a target of theirs, and as problems.
func (p *pass) reportTLSPolicies() {
	for _, policy := range p.tlsPolicies.order {
		p.planWants(policy.wants)
		missing := p.missingTLSTargets(policy)
		origin := p.origin("BackendTLSPolicy", policy.obj.Namespace, policy.obj.Name, policy.obj.Generation, "")
		var targets []leadKey
		for _, ref := range policy.obj.Spec.TargetRefs {
			targets = append(targets, leadKey{string(ref.Kind), policy.obj.Namespace, string(ref.Name)})
		}
		for _, g := range p.leads.gateways(targets) {
			p.b.Outcome(plan.Outcome{Object: origin, Parent: g.origin, Conditions: policy.conditions(missing), AttachedRoutes: -1})
		}
		aside := func(field string, reason problem.Reason, what, message string) {
			p.aside(origin, field, reason, what, message)
		}
		for _, lost := range policy.lost {
			aside("spec.targetRefs", problem.Conflicted, "the policy for that target", lost)
		}
		for _, m := range missing {
			field, message, _ := strings.Cut(m, ": ")
			aside(field, problem.TargetNotFound, "the policy for that target", message+"; mend the name")
		}
		for _, f := range policy.trust.unresolved {
			aside(f.field, f.reason, "those CA certificates", f.message)
		}
		if f := policy.trust.invalid; f.reason != "" {
			aside(f.field, f.reason, "the backends that the policy is for", f.message)
		}
		for key := range policy.obj.Spec.Options {
			if strings.Contains(string(key), "/") && !strings.HasPrefix(string(key), optionPrefix) {
				aside("spec.options", problem.UnsupportedValue, "the option",
					fmt.Sprintf("option %q belongs to another implementation and has no effect here; remove it", key))
			}
		}
	}
}
