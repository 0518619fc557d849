package gatewayapi

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/apis/v1alpha1"
	"gatehouse.dev/gatehouse/controller/problem"
)

// parameters follows a parametersRef. A fault's reason is "" when it leads to GatewayParameters.
func (p *pass) parameters(v *view, group, kind string, name types.NamespacedName) (v1alpha1.GatewayParametersSpec, fault) {
	invalid := func(format string, args ...any) (v1alpha1.GatewayParametersSpec, fault) {
		return v1alpha1.GatewayParametersSpec{}, fault{"", problem.InvalidParameters, fmt.Sprintf(format, args...)}
	}
	if group != v1alpha1.GroupVersion().Group || kind != "GatewayParameters" {
		return invalid("kind %q in group %q is not one that this version reads; name a GatewayParameters of group %s, or remove parametersRef",
			kind, group, v1alpha1.GroupVersion().Group)
	}
	if name.Namespace == "" {
		return invalid("GatewayParameters %s is in a namespace; set parametersRef.namespace", name.Name)
	}
	v.places[objectName{"GatewayParameters", name.Namespace, name.Name}] = p.place("GatewayParameters", name.Namespace, name.Name)
	obj := p.st.GatewayParameters[name]
	if obj == nil {
		return invalid("GatewayParameters %s does not exist; create it or mend the name", name)
	}
	return obj.Spec, fault{}
}

// classParameters reads a GatewayClass's spec.parametersRef. It returns what is wrong with it, "" when nothing is.
func (p *pass) classParameters(v *view, obj *gatewayv1.GatewayClass) string {
	ref := obj.Spec.ParametersRef
	if ref == nil {
		return ""
	}
	name := types.NamespacedName{Name: ref.Name}
	if ref.Namespace != nil {
		name.Namespace = string(*ref.Namespace)
	}
	spec, wrong := p.parameters(v, string(ref.Group), string(ref.Kind), name)
	if wrong.reason != "" {
		return wrong.message
	}
	if v.parameters == nil {
		v.parameters = make(map[string]v1alpha1.GatewayParametersSpec)
	}
	v.parameters[obj.Name] = spec
	return ""
}

// readParameters reads the Gateway's own spec.infrastructure.parametersRef, which outdoes that of its class field by field.
func (p *pass) readParameters(v *view, g *gateway) {
	g.planned.Parameters = v.parameters[string(g.obj.Spec.GatewayClassName)]
	if g.obj.Spec.Infrastructure == nil || g.obj.Spec.Infrastructure.ParametersRef == nil {
		return
	}
	ref := g.obj.Spec.Infrastructure.ParametersRef
	spec, wrong := p.parameters(v, string(ref.Group), string(ref.Kind), types.NamespacedName{Namespace: g.obj.Namespace, Name: ref.Name})
	if wrong.reason != "" {
		g.refuse(v, "spec.infrastructure.parametersRef", wrong.reason, "%s", wrong.message)
		return
	}
	g.planned.Parameters = v1alpha1.Merge(g.planned.Parameters, spec)
}
