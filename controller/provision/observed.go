package provision

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"gatehouse.dev/gatehouse/controller/plan"
)

// Observed is what the cluster says of a Gateway's objects.
type Observed struct {
	// Addresses are those at which the Gateway is reached: a load balancer's, or the Service's own when its type is another. Node ports are
	// reached at the nodes' addresses too, which are not listed.
	Addresses []plan.Address
	// Replicas is how many proxies are wanted, Ready how many are ready.
	Replicas, Ready int
	// ServiceReady says that the Service has an address.
	ServiceReady bool
	// Problem says why the Gateway cannot be provisioned; "" when nothing is known to be wrong.
	Problem string
}

func (o Observed) equal(other Observed) bool {
	return slices.Equal(o.Addresses, other.Addresses) && o.Replicas == other.Replicas && o.Ready == other.Ready &&
		o.ServiceReady == other.ServiceReady && o.Problem == other.Problem
}

// observe reads a Service and a Deployment, which are nil when there are none.
func observe(service *corev1.Service, deployment *appsv1.Deployment, problem string) Observed {
	o := Observed{Problem: problem}
	if service != nil {
		o.Addresses = addresses(service)
		o.ServiceReady = len(o.Addresses) > 0
	}
	if deployment == nil {
		return o
	}
	o.Replicas, o.Ready = 1, int(deployment.Status.ReadyReplicas)
	if deployment.Spec.Replicas != nil {
		o.Replicas = int(*deployment.Spec.Replicas)
	}
	if o.Problem == "" && o.Ready == 0 {
		o.Problem = podProblem(deployment)
	}
	return o
}

// addresses returns what a Service is reached at.
func addresses(s *corev1.Service) []plan.Address {
	var out []plan.Address
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		for _, i := range s.Status.LoadBalancer.Ingress {
			switch {
			case i.IP != "":
				out = append(out, plan.Address{Type: addressIP, Value: i.IP})
			case i.Hostname != "":
				out = append(out, plan.Address{Type: addressHostname, Value: i.Hostname})
			}
		}
		return out
	}
	for _, ip := range s.Spec.ClusterIPs {
		if ip != corev1.ClusterIPNone {
			out = append(out, plan.Address{Type: addressIP, Value: ip})
		}
	}
	return out
}

// podProblem returns why the Deployment's Pods cannot be made: a quota, a policy of the namespace, a missing PriorityClass.
func podProblem(d *appsv1.Deployment) string {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return "Pods of Deployment " + d.Namespace + "/" + d.Name + " cannot be created: " + c.Message
		}
	}
	return ""
}
