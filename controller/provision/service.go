package provision

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"

	"gatehouse.dev/gatehouse/controller/apis/v1alpha1"
	"gatehouse.dev/gatehouse/controller/plan"
)

// The types of addresses of Gateway API, and the routability that asks for a ClusterIP.
const (
	addressIP          = "IPAddress"
	addressHostname    = "Hostname"
	routabilityCluster = "Cluster"
)

// service is how the proxies are reached. It has the fields that make the Service what is wanted and no other, so that the addresses and
// node ports that the cluster fills in stay.
//
// A Service takes one address (Service.spec.loadBalancerIP, or clusterIP). Of several IP addresses that a Gateway asks for, the first is
// requested; Observed shows which are given, and the Gateway's status says AddressNotUsable of the others. What would take any number,
// spec.externalIPs, is not used: whoever may write it can take over the traffic of an address that is not theirs (CVE-2020-8554).
func service(g *plan.Gateway, s *settings) *coreac.ServiceApplyConfiguration {
	var parameters v1alpha1.ServiceParameters
	if g.Parameters.Service != nil {
		parameters = *g.Parameters.Service
	}
	kind := serviceType(g)
	spec := coreac.ServiceSpec().WithType(kind).WithSelector(selector(g))
	for _, p := range g.Ports {
		spec.WithPorts(coreac.ServicePort().WithName(p.Name).WithPort(int32(p.Number)).WithProtocol(corev1.Protocol(p.Protocol)).
			WithTargetPort(intstr.FromInt32(int32(p.Number))))
	}
	if policy := parameters.ExternalTrafficPolicy; policy != "" && kind != corev1.ServiceTypeClusterIP {
		spec.WithExternalTrafficPolicy(policy)
	}
	if class := parameters.LoadBalancerClass; class != nil && kind == corev1.ServiceTypeLoadBalancer {
		spec.WithLoadBalancerClass(*class)
	}
	if ip := requestedIP(g); ip != "" {
		switch {
		case kind == corev1.ServiceTypeLoadBalancer:
			spec.WithLoadBalancerIP(ip)
		case g.Routability == routabilityCluster:
			spec.WithClusterIP(ip)
		}
	}
	all := maps.Clone(parameters.Annotations)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, annotations(g))
	return coreac.Service(objectName(g.Origin.Name), g.Origin.Namespace).
		WithLabels(labels(g, s)).WithAnnotations(all).WithOwnerReferences(owner(g)).WithSpec(spec)
}

// serviceType: an address that is asked for within the cluster must not be exposed outside, whatever the parameters say.
func serviceType(g *plan.Gateway) corev1.ServiceType {
	if g.Routability == routabilityCluster {
		return corev1.ServiceTypeClusterIP
	}
	if p := g.Parameters.Service; p != nil && p.Type != "" {
		return p.Type
	}
	return corev1.ServiceTypeLoadBalancer
}

// requestedIP returns the first IP address that the Gateway asks for, or "".
func requestedIP(g *plan.Gateway) string {
	for _, a := range g.Addresses {
		if a.Type == addressIP && a.Value != "" {
			return a.Value
		}
	}
	return ""
}
