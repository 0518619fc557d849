package provision

import (
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsac "k8s.io/client-go/applyconfigurations/apps/v1"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"

	"gatehouse.dev/gatehouse/controller/plan"
)

// Audience is the audience of the proxies' tokens: no other server takes them, and the controller takes no other's.
const Audience = "gatehouse.dev/controller"

const (
	// proxyUser is a user and group that own nothing.
	proxyUser = 65532
	// tokenSeconds is how long a token is valid; the kubelet renews it when four fifths are over.
	tokenSeconds = 3600
	// defaultAdminPort and defaultDrainSeconds are GatewayParameters' defaults.
	defaultAdminPort    = 15020
	defaultDrainSeconds = 30
	// drainMargin is what a proxy gets beyond its drain time to end by itself, in seconds.
	drainMargin = 10
	// leadSeconds is how long a proxy that is to end still takes new connections. Nodes and load balancers learn that it ends when it does
	// itself, and go on sending until then: without a lead some clients would be refused in every rollout. kube-proxy needs about a second.
	leadSeconds = 5
	// identityFolder is where a proxy finds its token and the controller's CA.
	identityFolder = "/var/run/gatehouse.dev"
	tokenFile      = "token"
)

// deployment runs the proxies. Pods are replaced one by one and never before their successor is ready; a Pod that ends has its drain time.
// Where parameters set no number of replicas the field is not ours, so that an autoscaler can have it.
func deployment(g *plan.Gateway, s *settings) (*appsac.DeploymentApplyConfiguration, error) {
	pod, err := podSpec(g, s)
	if err != nil {
		return nil, err
	}
	spec := appsac.DeploymentSpec().
		WithSelector(metaac.LabelSelector().WithMatchLabels(selector(g))).
		WithRevisionHistoryLimit(3).
		WithStrategy(appsac.DeploymentStrategy().WithType(appsv1.RollingUpdateDeploymentStrategyType).
			WithRollingUpdate(appsac.RollingUpdateDeployment().
				WithMaxUnavailable(intstr.FromInt32(0)).WithMaxSurge(intstr.FromString("25%")))).
		WithTemplate(coreac.PodTemplateSpec().WithLabels(labels(g, s)).WithAnnotations(annotations(g)).WithSpec(pod))
	if g.Parameters.Replicas != nil {
		spec.WithReplicas(*g.Parameters.Replicas)
	}
	return appsac.Deployment(objectName(g.Origin.Name), g.Origin.Namespace).
		WithLabels(labels(g, s)).WithAnnotations(annotations(g)).WithOwnerReferences(owner(g)).WithSpec(spec), nil
}

// podSpec is a proxy's Pod. It fits Pod Security's restricted profile: binding ports below 1024 needs no capability, because the sysctl, which
// that profile allows, makes them ordinary ports within the Pod.
func podSpec(g *plan.Gateway, s *settings) (*coreac.PodSpecApplyConfiguration, error) {
	container, err := container(g, s)
	if err != nil {
		return nil, err
	}
	spec := coreac.PodSpec().
		WithServiceAccountName(objectName(g.Origin.Name)).
		WithAutomountServiceAccountToken(false).
		WithEnableServiceLinks(false).
		WithTerminationGracePeriodSeconds(leadSeconds + int64(drainSeconds(g)) + drainMargin).
		WithSecurityContext(coreac.PodSecurityContext().
			WithRunAsNonRoot(true).WithRunAsUser(proxyUser).WithRunAsGroup(proxyUser).WithFSGroup(proxyUser).
			WithSeccompProfile(coreac.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault)).
			WithSysctls(coreac.Sysctl().WithName("net.ipv4.ip_unprivileged_port_start").WithValue("0"))).
		WithContainers(container).
		WithVolumes(coreac.Volume().WithName("identity").WithProjected(coreac.ProjectedVolumeSource().WithSources(
			coreac.VolumeProjection().WithServiceAccountToken(coreac.ServiceAccountTokenProjection().
				WithAudience(Audience).WithExpirationSeconds(tokenSeconds).WithPath(tokenFile)),
			coreac.VolumeProjection().WithConfigMap(coreac.ConfigMapProjection().WithName(objectName(g.Origin.Name)).
				WithItems(coreac.KeyToPath().WithKey(caKey).WithPath(caKey))))))
	for _, secret := range g.Parameters.ImagePullSecrets {
		spec.WithImagePullSecrets(coreac.LocalObjectReference().WithName(secret.Name))
	}
	return spec, schedule(spec, g)
}

// schedule says where the Pods run. Without a wish of the user's they are spread over nodes, as far as there are nodes.
func schedule(spec *coreac.PodSpecApplyConfiguration, g *plan.Gateway) error {
	p := g.Parameters.Scheduling
	if p != nil {
		if len(p.NodeSelector) > 0 {
			spec.WithNodeSelector(p.NodeSelector)
		}
		for i := range p.Tolerations {
			toleration, err := as[coreac.TolerationApplyConfiguration](&p.Tolerations[i])
			if err != nil {
				return err
			}
			spec.WithTolerations(toleration)
		}
		if p.Affinity != nil {
			affinity, err := as[coreac.AffinityApplyConfiguration](p.Affinity)
			if err != nil {
				return err
			}
			spec.WithAffinity(affinity)
		}
		if p.PriorityClassName != "" {
			spec.WithPriorityClassName(p.PriorityClassName)
		}
	}
	constraints := []corev1.TopologySpreadConstraint{
		{MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway},
	}
	if p != nil && p.TopologySpreadConstraints != nil {
		constraints = p.TopologySpreadConstraints
	}
	for _, constraint := range constraints {
		if constraint.LabelSelector == nil {
			constraint.LabelSelector = &metav1.LabelSelector{MatchLabels: selector(g)}
		}
		c, err := as[coreac.TopologySpreadConstraintApplyConfiguration](&constraint)
		if err != nil {
			return err
		}
		spec.WithTopologySpreadConstraints(c)
	}
	return nil
}

// container is the proxy. It has a readiness probe each second, so that a Gateway serves soon after it was made, and no liveness probe: a proxy
// without a configuration waits for the controller, and a restart would bring it none. The ports of listeners are not named in it: that would do
// nothing but replace every Pod, with all its connections, whenever a listener comes or goes.
func container(g *plan.Gateway, s *settings) (*coreac.ContainerApplyConfiguration, error) {
	image := s.image
	if g.Parameters.Image != "" {
		image = g.Parameters.Image
	}
	admin := adminPort(g)
	c := coreac.Container().WithName("proxy").WithImage(image).
		WithCommand("gatehouse-proxy").WithArgs(arguments(g, s, admin)...).
		WithEnv(fieldEnv("POD_NAME", "metadata.name"), fieldEnv("POD_NAMESPACE", "metadata.namespace")).
		WithPorts(coreac.ContainerPort().WithName("admin").WithContainerPort(int32(admin)).WithProtocol(corev1.ProtocolTCP)).
		WithReadinessProbe(coreac.Probe().WithPeriodSeconds(1).WithTimeoutSeconds(1).WithFailureThreshold(3).
			WithHTTPGet(coreac.HTTPGetAction().WithPath("/ready").WithPort(intstr.FromString("admin")))).
		WithLifecycle(coreac.Lifecycle().WithPreStop(coreac.LifecycleHandler().WithSleep(coreac.SleepAction().WithSeconds(leadSeconds)))).
		WithSecurityContext(coreac.SecurityContext().
			WithAllowPrivilegeEscalation(false).WithReadOnlyRootFilesystem(true).WithRunAsNonRoot(true).
			WithCapabilities(coreac.Capabilities().WithDrop("ALL"))).
		WithVolumeMounts(coreac.VolumeMount().WithName("identity").WithMountPath(identityFolder).WithReadOnly(true))
	if policy := g.Parameters.ImagePullPolicy; policy != "" {
		c.WithImagePullPolicy(policy)
	}
	resources := g.Parameters.Resources
	if resources == nil {
		resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("100m"),
			corev1.ResourceMemory: resource.MustParse("128Mi"),
		}}
	}
	applied, err := as[coreac.ResourceRequirementsApplyConfiguration](resources)
	if err != nil {
		return nil, err
	}
	return c.WithResources(applied), nil
}

func fieldEnv(name, path string) *coreac.EnvVarApplyConfiguration {
	return coreac.EnvVar().WithName(name).
		WithValueFrom(coreac.EnvVarSource().WithFieldRef(coreac.ObjectFieldSelector().WithAPIVersion("v1").WithFieldPath(path)))
}

// arguments are the flags of gatehouse-proxy.
func arguments(g *plan.Gateway, s *settings, admin uint16) []string {
	level, format, access, query := "info", "json", "-", false
	if l := g.Parameters.Logging; l != nil {
		if l.Level != "" {
			level = l.Level
		}
		if l.Format != "" {
			format = l.Format
		}
		if l.AccessLog != nil && !*l.AccessLog {
			access = ""
		}
		query = l.AccessLogQuery != nil && *l.AccessLogQuery
	}
	out := []string{
		"--controller=" + s.address,
		"--server-name=" + s.serverName,
		"--gateway=" + g.Key(),
		"--token-file=" + identityFolder + "/" + tokenFile,
		"--ca-file=" + identityFolder + "/" + caKey,
		"--admin=:" + strconv.Itoa(int(admin)),
		"--log-level=" + level,
		"--log-format=" + format,
		"--access-log=" + access,
		"--drain-time=" + strconv.Itoa(int(drainSeconds(g))) + "s",
	}
	if query {
		out = append(out, "--access-log-query")
	}
	return out
}

func drainSeconds(g *plan.Gateway) int32 {
	if d := g.Parameters.DrainSeconds; d != nil {
		return *d
	}
	return defaultDrainSeconds
}

// adminPort returns the port that parameters choose, or else the first from the default on that no listener has.
func adminPort(g *plan.Gateway) uint16 {
	if a := g.Parameters.Admin; a != nil && a.Port != nil {
		return uint16(*a.Port)
	}
	port := uint16(defaultAdminPort)
	for _, p := range g.Ports { // sorted by number
		if p.Number == port && p.Protocol == "TCP" {
			port++
		}
	}
	return port
}
