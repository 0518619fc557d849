package gatewayapi

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"gatehouse.dev/gatehouse/controller/source"
)

// grants are the ReferenceGrants by the namespace that they open.
type grants map[string][]*gatewayv1beta1.ReferenceGrant

func newGrants(st *source.State) grants {
	g := make(grants)
	for _, grant := range st.ReferenceGrants {
		g[grant.Namespace] = append(g[grant.Namespace], grant)
	}
	return g
}

// reference is one object naming another.
type reference struct {
	fromGroup, fromKind, fromNamespace   string
	toGroup, toKind, toNamespace, toName string
}

// permits reports whether a reference may be followed: within a namespace always, to another one when a ReferenceGrant there says
// so (Gateway API: ReferenceGrant).
func (g grants) permits(ref reference) bool {
	if ref.fromNamespace == ref.toNamespace {
		return true
	}
	for _, grant := range g[ref.toNamespace] {
		if grantFrom(grant.Spec.From, ref) && grantTo(grant.Spec.To, ref) {
			return true
		}
	}
	return false
}

func grantFrom(list []gatewayv1.ReferenceGrantFrom, ref reference) bool {
	for _, from := range list {
		if string(from.Group) == ref.fromGroup && string(from.Kind) == ref.fromKind && string(from.Namespace) == ref.fromNamespace {
			return true
		}
	}
	return false
}

// grantTo: a To without a name is every object of that kind.
func grantTo(list []gatewayv1.ReferenceGrantTo, ref reference) bool {
	for _, to := range list {
		if string(to.Group) == ref.toGroup && string(to.Kind) == ref.toKind &&
			(to.Name == nil || *to.Name == "" || string(*to.Name) == ref.toName) {
			return true
		}
	}
	return false
}
