package provision

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"
	policyac "k8s.io/client-go/applyconfigurations/policy/v1"

	"gatehouse.dev/gatehouse/controller/plan"
)

// settings is what the objects of all Gateways have in common.
type settings struct {
	// controller is the controller's name, which is the field manager as well.
	controller string
	// image is the proxy's, where parameters name none.
	image string
	// address is HOST:PORT of the controller, serverName the name in its certificate, ca the PEM that it is verified with.
	address, serverName string
	ca                  []byte
}

// wanted is an object that a Gateway should have.
type wanted struct {
	kind kindName
	name string
	// config is the apply configuration of the kind: exactly the fields that are ours.
	config any
}

// kindName is the kind of an object.
type kindName string

// The kinds that a Gateway's objects are of.
const (
	kindServiceAccount kindName = "ServiceAccount"
	kindConfigMap      kindName = "ConfigMap"
	kindService        kindName = "Service"
	kindDeployment     kindName = "Deployment"
	kindBudget         kindName = "PodDisruptionBudget"
)

// objects returns what a Gateway should have, in the order in which it is made. The same arguments give the same objects.
func objects(g *plan.Gateway, s *settings) ([]wanted, error) {
	name := objectName(g.Origin.Name)
	deployment, err := deployment(g, s)
	if err != nil {
		return nil, fmt.Errorf("the Deployment of %s: %w", g.Origin, err)
	}
	out := []wanted{
		{kindServiceAccount, name, serviceAccount(g, s)},
		{kindConfigMap, name, configMap(g, s)},
	}
	// A Service must have a port. One that is there already stays as it is while no listener serves, so that its address is kept.
	if len(g.Ports) > 0 {
		out = append(out, wanted{kindService, name, service(g, s)})
	}
	out = append(out, wanted{kindDeployment, name, deployment})
	if replicas := g.Parameters.Replicas; replicas != nil && *replicas > 1 {
		out = append(out, wanted{kindBudget, name, budget(g, s)})
	}
	return out, nil
}

// labels returns the labels of every object of a Gateway and of its Pods: the Gateway's own and ours. Ours outdo the Gateway's where something
// depends on them.
func labels(g *plan.Gateway, s *settings) map[string]string {
	out := map[string]string{appLabel: "gatehouse-proxy"}
	for key, value := range g.Labels {
		// The Deployment's controller writes it, and selects by it.
		if key != "pod-template-hash" {
			out[key] = value
		}
	}
	out[managedByLabel] = managedBy(s.controller)
	out[gatewayLabel] = objectName(g.Origin.Name)
	out[nameLabel] = labelValue(g.Origin.Name)
	out[classLabel] = labelValue(g.Class)
	return out
}

// annotations returns the annotations of every object of a Gateway and of its Pods.
func annotations(g *plan.Gateway) map[string]string {
	out := maps.Clone(g.Annotations)
	maps.DeleteFunc(out, func(key, _ string) bool {
		// The Deployment's controller writes these. Were they ours too, we would write in turns for ever.
		return strings.HasPrefix(key, "deployment.kubernetes.io/") ||
			// This takes the proxies' AppArmor profile away, which is not the business of who may create a Gateway.
			strings.HasPrefix(key, "container.apparmor.security.beta.kubernetes.io/")
	})
	return out
}

// selector returns what selects the Pods of a Gateway. It depends on the Gateway's name alone: a Deployment's selector cannot change.
func selector(g *plan.Gateway) map[string]string {
	return map[string]string{gatewayLabel: objectName(g.Origin.Name)}
}

// owner refers to the Gateway, with which the object ends. Without blockOwnerDeletion no right to the Gateways' finalizers is needed.
func owner(g *plan.Gateway) *metaac.OwnerReferenceApplyConfiguration {
	return metaac.OwnerReference().WithAPIVersion(gatewayAPIVersion).WithKind(gatewayKind).
		WithName(g.Origin.Name).WithUID(types.UID(g.UID)).WithController(true)
}

// The owner of every object.
const (
	gatewayGroup      = "gateway.networking.k8s.io"
	gatewayAPIVersion = gatewayGroup + "/v1"
	gatewayKind       = "Gateway"
)

// serviceAccount is the proxies' identity towards the controller. It has no rights, and its token is not mounted: the proxies have one for
// the controller only.
func serviceAccount(g *plan.Gateway, s *settings) *coreac.ServiceAccountApplyConfiguration {
	return coreac.ServiceAccount(objectName(g.Origin.Name), g.Origin.Namespace).
		WithLabels(labels(g, s)).WithAnnotations(annotations(g)).WithOwnerReferences(owner(g)).
		WithAutomountServiceAccountToken(false)
}

// caKey is the key of the ConfigMap, and the file in a Pod, that holds what the controller is verified with.
const caKey = "ca.crt"

func configMap(g *plan.Gateway, s *settings) *coreac.ConfigMapApplyConfiguration {
	return coreac.ConfigMap(objectName(g.Origin.Name), g.Origin.Namespace).
		WithLabels(labels(g, s)).WithAnnotations(annotations(g)).WithOwnerReferences(owner(g)).
		WithData(map[string]string{caKey: string(s.ca)})
}

// budget keeps three proxies of four, and of fewer all but one, while nodes are drained. Proxies that are not ready do not hold a node up.
func budget(g *plan.Gateway, s *settings) *policyac.PodDisruptionBudgetApplyConfiguration {
	return policyac.PodDisruptionBudget(objectName(g.Origin.Name), g.Origin.Namespace).
		WithLabels(labels(g, s)).WithAnnotations(annotations(g)).WithOwnerReferences(owner(g)).
		WithSpec(policyac.PodDisruptionBudgetSpec().
			WithMaxUnavailable(intstr.FromString("25%")).
			WithUnhealthyPodEvictionPolicy(policyv1.AlwaysAllow).
			WithSelector(metaac.LabelSelector().WithMatchLabels(selector(g))))
}

// as turns a value of the API's types into an apply configuration, which has the same fields and leaves out what is not set.
func as[T any](value any) (*T, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	out := new(T)
	return out, json.Unmarshal(text, out)
}
