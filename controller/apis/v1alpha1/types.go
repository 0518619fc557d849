// Package v1alpha1 is the API of Gatehouse's own in group gatehouse.dev: what Gateway API has no word for.
//
// +kubebuilder:object:generate=true
// +groupName=gatehouse.dev
package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group and Version name the API.
const (
	Group   = "gatehouse.dev"
	Version = "v1alpha1"
)

// GroupVersion names the API as Kubernetes' packages want it.
func GroupVersion() schema.GroupVersion { return schema.GroupVersion{Group: Group, Version: Version} }

// GatewayParameters says how the proxies of Gateways are run. A GatewayClass refers to one with spec.parametersRef, a Gateway with
// spec.infrastructure.parametersRef; what the Gateway's says outdoes what the class's says, field by field.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=gateway-api,shortName=gwp
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.spec.replicas`
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.service.type`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type GatewayParameters struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the desired state.
	//
	// +optional
	Spec GatewayParametersSpec `json:"spec,omitempty"`
}

// GatewayParametersList is a list of GatewayParameters.
//
// +kubebuilder:object:root=true
type GatewayParametersList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GatewayParameters `json:"items"`
}

// GatewayParametersSpec is how proxies are run.
type GatewayParametersSpec struct {
	// Replicas is the number of proxies of each Gateway. Default 1; a HorizontalPodAutoscaler may change it where it is not set.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`
	// Image of the proxy. Default: that which belongs to the controller.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	Image string `json:"image,omitempty"`
	// ImagePullPolicy of that image. Default: the cluster's.
	//
	// +optional
	// +kubebuilder:validation:Enum=Always;Never;IfNotPresent
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	// ImagePullSecrets for that image, in the Gateway's namespace.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=16
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	// Resources of the proxy's container. The memory limit bounds its heap, the CPU limit its parallelism. Default: requests of 100m and
	// 128Mi, no limits.
	//
	// +optional
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`
	// Service is how the proxies are reached.
	//
	// +optional
	Service *ServiceParameters `json:"service,omitempty"`
	// Scheduling is where the proxies run.
	//
	// +optional
	Scheduling *SchedulingParameters `json:"scheduling,omitempty"`
	// Admin is the listener for operators in each proxy.
	//
	// +optional
	Admin *AdminParameters `json:"admin,omitempty"`
	// Logging is what the proxies write.
	//
	// +optional
	Logging *LoggingParameters `json:"logging,omitempty"`
	// DrainSeconds is how long exchanges may take to finish when a proxy stops. Default 30.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=86400
	DrainSeconds *int32 `json:"drainSeconds,omitempty"`
}

// ServiceParameters is how proxies are reached.
type ServiceParameters struct {
	// Type of the Service. Default LoadBalancer. A Gateway whose addresses have routability Cluster gets ClusterIP in any case.
	//
	// +optional
	// +kubebuilder:validation:Enum=LoadBalancer;NodePort;ClusterIP
	Type corev1.ServiceType `json:"type,omitempty"`
	// ExternalTrafficPolicy of the Service. Local keeps the clients' addresses. Default: the cluster's. A ClusterIP Service has none.
	//
	// +optional
	// +kubebuilder:validation:Enum=Cluster;Local
	ExternalTrafficPolicy corev1.ServiceExternalTrafficPolicy `json:"externalTrafficPolicy,omitempty"`
	// LoadBalancerClass of a LoadBalancer Service. Default: the cluster's. Kubernetes lets nobody change it later.
	//
	// +optional
	LoadBalancerClass *string `json:"loadBalancerClass,omitempty"`
	// Annotations of the Service, beside those of the Gateway's spec.infrastructure.
	//
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// SchedulingParameters is where proxies run, as in a Pod's spec.
type SchedulingParameters struct {
	// NodeSelector is the labels that a node must have.
	//
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Tolerations are the taints that a node may have.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// Affinity is to which nodes and beside which Pods.
	//
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// TopologySpreadConstraints are how the proxies of a Gateway are spread. One without a labelSelector counts that Gateway's proxies.
	// Default: over nodes, as far as possible.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=16
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// PriorityClassName is which Pods give way to which. Default: the cluster's.
	//
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`
}

// AdminParameters is a proxy's listener for operators.
type AdminParameters struct {
	// Port of the readiness check and the metrics. Default 15020, or the next one that no listener of the Gateway has.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
}

// LoggingParameters is what a proxy writes.
type LoggingParameters struct {
	// Level is the least level of the proxy's own log. Default info.
	//
	// +optional
	// +kubebuilder:validation:Enum=debug;info;warn;error
	Level string `json:"level,omitempty"`
	// Format of the proxy's own log. Default json.
	//
	// +optional
	// +kubebuilder:validation:Enum=text;json
	Format string `json:"format,omitempty"`
	// AccessLog says whether each exchange is logged to stdout. Default true.
	//
	// +optional
	AccessLog *bool `json:"accessLog,omitempty"`
	// AccessLogQuery logs the query as well; queries often carry secrets. Default false.
	//
	// +optional
	AccessLogQuery *bool `json:"accessLogQuery,omitempty"`
}
