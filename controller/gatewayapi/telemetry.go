package gatewayapi

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// otlpGRPCPort is the port that is registered for OTLP over gRPC.
const otlpGRPCPort = 4317

// tracing is what an XTelemetryPolicy says of the Gateways that it is for.
type tracing struct {
	// config is nil where the proxy's own settings hold. Its Cluster is not set yet.
	config *config.Tracing
	// provider is where spans go; nil for nowhere. key is what is asked for, also when it cannot be used.
	provider *target
	key      targetKey
}

// buildTelemetry decides for each Gateway which policy it is traced by, and says what became of the policies. It comes after the view and
// the targets.
func (p *pass) buildTelemetry() {
	p.tracing = nil
	if len(p.st.XTelemetryPolicies) == 0 {
		return
	}
	p.tracing = make(map[*gateway]tracing)
	winners := make(map[types.NamespacedName]string)
	for _, key := range byAge(p.st.XTelemetryPolicies) {
		obj := p.st.XTelemetryPolicies[key]
		origin := p.origin("XTelemetryPolicy", obj.Namespace, obj.Name, obj.Generation, "")
		made, wrong, unresolved := p.readTelemetry(obj, origin)
		if wrong.reason != "" {
			p.aside(origin, wrong.field, wrong.reason, "the policy", wrong.message)
		}
		if unresolved.reason != "" {
			p.aside(origin, unresolved.field, unresolved.reason, "the spans", unresolved.message)
		}
		for i, ref := range obj.Spec.TargetRefs {
			field := fmt.Sprintf("spec.targetRefs[%d]", i)
			if ref.Group != gatewayGroup || ref.Kind != "Gateway" {
				p.aside(origin, field, problem.TargetNotFound, "the policy for that target",
					fmt.Sprintf("kind %q in group %q has no tracing; name a Gateway", ref.Kind, ref.Group))
				continue
			}
			name := types.NamespacedName{Namespace: obj.Namespace, Name: string(ref.Name)}
			g := p.view.gateways[name]
			if g == nil {
				if p.st.Gateways[name] == nil {
					p.aside(origin, field, problem.TargetNotFound, "the policy for that target",
						fmt.Sprintf("Gateway %s does not exist; create it or mend the name", ref.Name))
				}
				continue
			}
			accepted := condition(gatewayv1.PolicyConditionAccepted, true, gatewayv1.PolicyReasonAccepted, "")
			winner, taken := winners[name]
			switch {
			case taken && winner == obj.Name:
				continue // the same target twice
			case taken:
				accepted = condition(gatewayv1.PolicyConditionAccepted, false, gatewayv1.PolicyReasonConflicted,
					fmt.Sprintf("Gateway %s has XTelemetryPolicy %s already, which takes precedence", ref.Name, winner))
				p.aside(origin, field, problem.Conflicted, "the policy for that target", accepted.Message)
			case wrong.reason != "":
				accepted = condition(gatewayv1.PolicyConditionAccepted, false, wrong.reason, wrong.message)
			default:
				p.tracing[g] = made
				p.leadFrom(g, made.key)
			}
			if !taken {
				winners[name] = obj.Name
			}
			resolved := condition(gatewayxv1alpha1.TelemetryPolicyConditionResolvedRefs, true,
				gatewayxv1alpha1.TelemetryPolicyReasonResolvedRefs, "")
			if unresolved.reason != "" {
				resolved = condition(gatewayxv1alpha1.TelemetryPolicyConditionResolvedRefs, false, unresolved.reason, unresolved.message)
			}
			p.b.Outcome(plan.Outcome{Object: origin, Parent: g.origin, Conditions: []plan.Condition{accepted, resolved}, AttachedRoutes: -1})
		}
	}
}

// readTelemetry translates spec.tracing. wrong makes the policy unusable; with unresolved no spans are made, for they must not go where
// the policy did not send them.
func (p *pass) readTelemetry(obj *gatewayxv1alpha1.XTelemetryPolicy, origin config.Origin) (made tracing, wrong, unresolved fault) {
	spec := &obj.Spec.Tracing
	switch spec.Mode {
	case "", gatewayxv1alpha1.TracingModeImplementationDefault:
		return made, wrong, unresolved
	case gatewayxv1alpha1.TracingModeDisabled:
		made.config = &config.Tracing{Origin: origin, Disabled: true}
		return made, wrong, unresolved
	case gatewayxv1alpha1.TracingModeEnabled:
	default:
		return made, fault{"spec.tracing.mode", problem.Invalid, fmt.Sprintf("mode %q is not known; use Enabled, Disabled or "+
			"ImplementationDefault", spec.Mode)}, unresolved
	}
	out := &config.Tracing{Origin: origin, ServiceName: spec.ServiceName, SpanName: spec.SpanName}
	if out.Sampling, wrong = fraction("spec.tracing.samplingRate", spec.SamplingRate); wrong.reason != "" {
		return made, wrong, unresolved
	}
	parent := &spec.ParentBasedSampling
	out.IgnoreParent = parent.Mode == gatewayxv1alpha1.ParentBasedSamplingModeDisabled
	if out.ParentSampling, wrong = fraction("spec.tracing.parentBasedSampling.samplingRate", parent.SamplingRate); wrong.reason != "" {
		return made, wrong, unresolved
	}
	for i := range spec.Attributes {
		one, f := traceAttribute(&spec.Attributes[i])
		if f.reason != "" {
			return made, f.with(fmt.Sprintf("spec.tracing.attributes[%d]", i)), unresolved
		}
		out.Attributes = append(out.Attributes, one)
	}
	for i, h := range spec.Provider.Headers {
		if !isToken(string(h.Name)) || strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return made, fault{fmt.Sprintf("spec.tracing.provider.headers[%d]", i), problem.Invalid, "this is no header field; use a name of " +
				"letters, digits and -, and a value without control characters"}, unresolved
		}
		out.Headers = append(out.Headers, config.Header{Name: string(h.Name), Value: h.Value})
	}
	got := p.resolve("XTelemetryPolicy", obj.Namespace, spec.Provider.BackendRef)
	made.key = got.target
	if got.reason != "" {
		made.config = &config.Tracing{Origin: origin, Disabled: true}
		return made, wrong, fault{"spec.tracing.provider.backendRef", got.reason, got.message}
	}
	if got.target.port == otlpGRPCPort && !p.saysProtocol(got.target) {
		got.target.carries = carriesGRPC
	}
	made.config, made.provider, made.key = out, p.target(got.target), got.target
	return made, wrong, unresolved
}

// fraction reads a sampling rate; its denominator is 100 by default.
func fraction(field string, spec *gatewayv1.Fraction) (*config.Fraction, fault) {
	if spec == nil {
		return nil, fault{}
	}
	denominator := int32(100)
	if spec.Denominator != nil {
		denominator = *spec.Denominator
	}
	if denominator < 1 || spec.Numerator < 0 || spec.Numerator > denominator {
		return nil, fault{field, problem.Invalid, fmt.Sprintf("%d of %d is no sampling rate; use a numerator between 0 and the denominator",
			spec.Numerator, denominator)}
	}
	return &config.Fraction{Numerator: uint32(spec.Numerator), Denominator: uint32(denominator)}, fault{}
}

func traceAttribute(spec *gatewayxv1alpha1.Attribute) (config.TraceAttribute, fault) {
	out := config.TraceAttribute{Name: string(spec.Name)}
	switch spec.SourceType {
	case gatewayxv1alpha1.AttributeSourceHeader:
		out.Header = string(spec.HeaderName)
	case gatewayxv1alpha1.AttributeSourceLiteral:
		out.Literal = spec.LiteralValue
	case gatewayxv1alpha1.AttributeSourceAttribute:
		out.Attribute = spec.AttributeKey
	}
	if out.Header == "" && out.Literal == "" && out.Attribute == "" {
		return out, fault{"", problem.Invalid, fmt.Sprintf("attribute %s of source %q has no source; set headerName, literalValue or "+
			"attributeKey", spec.Name, spec.SourceType)}
	}
	return out, fault{}
}

// traced returns how a listener is traced, with the cluster that takes its spans in the Plan. It returns nil where the proxy's own
// settings hold.
func (p *pass) traced(l *listener, v variant) *config.Tracing {
	of := p.tracing[l.gateway]
	if of.config == nil || of.provider == nil {
		return of.config
	}
	made := *of.config
	p.refresh(of.provider)
	made.Cluster = of.provider.nameIn(v)
	p.useIn(of.provider, v)
	return &made
}
