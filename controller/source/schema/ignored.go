package schema

import "strings"

// ignored reports whether a kind of Kubernetes says nothing about traffic, so that the plain manifests of an application can stand
// in the folder as they are. The kinds are listed one by one: a misspelt kind must not be passed over in silence.
func ignored(group, kind string) bool {
	kinds := ""
	switch group {
	case "":
		kinds = "Binding ComponentStatus Event LimitRange Node PersistentVolume PersistentVolumeClaim Pod PodTemplate " +
			"ReplicationController ResourceQuota ServiceAccount"
	case "apps":
		kinds = "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet"
	case "batch":
		kinds = "CronJob Job"
	case "autoscaling":
		kinds = "HorizontalPodAutoscaler Scale"
	case "policy":
		kinds = "Eviction PodDisruptionBudget"
	case "rbac.authorization.k8s.io":
		kinds = "ClusterRole ClusterRoleBinding Role RoleBinding"
	case "networking.k8s.io":
		kinds = "IPAddress NetworkPolicy ServiceCIDR"
	case "storage.k8s.io":
		kinds = "CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass"
	case "scheduling.k8s.io":
		kinds = "PriorityClass"
	case "node.k8s.io":
		kinds = "RuntimeClass"
	case "coordination.k8s.io":
		kinds = "Lease LeaseCandidate"
	case "certificates.k8s.io":
		kinds = "CertificateSigningRequest"
	case "events.k8s.io":
		kinds = "Event"
	case "flowcontrol.apiserver.k8s.io":
		kinds = "FlowSchema PriorityLevelConfiguration"
	case "resource.k8s.io":
		kinds = "DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice"
	case "admissionregistration.k8s.io":
		kinds = "MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy " +
			"ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration"
	case "apiextensions.k8s.io":
		kinds = "CustomResourceDefinition"
	case "apiregistration.k8s.io":
		kinds = "APIService"
	case "kustomize.config.k8s.io":
		kinds = "Component Kustomization"
	}
	for k := range strings.FieldsSeq(kinds) {
		if k == kind {
			return true
		}
	}
	return false
}

// insteadOf names what to use in place of a kind of Kubernetes that does speak of traffic and is not read.
func insteadOf(group, kind string) (string, bool) {
	switch (groupKind{group, kind}) {
	case groupKind{"", "Endpoints"}:
		return "EndpointSlice of discovery.k8s.io/v1", true
	case groupKind{"networking.k8s.io", "Ingress"}:
		return "HTTPRoute of gateway.networking.k8s.io/v1", true
	case groupKind{"networking.k8s.io", "IngressClass"}:
		return "GatewayClass of gateway.networking.k8s.io/v1", true
	}
	return "", false
}
