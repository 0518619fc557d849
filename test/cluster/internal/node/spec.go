package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"gatehouse.dev/gatehouse/test/cluster/internal/container"
	"gatehouse.dev/gatehouse/test/cluster/internal/content"
)

// errConfig marks what is wrong with a container's configuration rather than with its start.
var errConfig = errors.New("wrong configuration")

// refusal tells why a pod can never run here, in the words of a kubelet's admission; "" if it can.
func refusal(pod *corev1.Pod) (reason, message string) {
	for name := range sysctls(pod) {
		if !strings.HasPrefix(name, "net.") {
			return "SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowlisted", name)
		}
		if pod.Spec.HostNetwork {
			return "SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowed with host net enabled", name)
		}
	}
	return "", ""
}

func sysctls(pod *corev1.Pod) map[string]string {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	settings := map[string]string{}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		settings[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
	}
	return settings
}

// containerSpec resolves everything that the container needs.
func (t *task) containerSpec(ctx context.Context) (*container.Spec, error) {
	pod, facts := t.pod.current(), t.pod.facts()
	program, err := t.pod.agent.Images.program(t.spec.Image)
	if err != nil {
		return nil, err
	}
	privileges, err := privileges(pod, t.spec)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	variables, err := t.pod.agent.resolver.Environment(ctx, pod, t.spec, facts)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	if _, ok := variables["HOME"]; !ok {
		variables["HOME"] = "/root"
		if privileges.User != 0 {
			variables["HOME"] = "/"
		}
	}
	scratch := filepath.Join(t.pod.folder, "root-"+t.spec.Name)
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return nil, err
	}
	s := &container.Spec{
		Scratch: scratch, Program: program, Env: content.Pairs(variables), Dir: t.spec.WorkingDir,
		Hostname: hostname(pod), Hosts: hosts(pod, facts.PodIP), Resolv: t.resolv(pod),
		Privileges: privileges, ReadOnlyRoot: isTrue(securityOf(t.spec).ReadOnlyRootFilesystem),
	}
	// Without a command the image's own is meant, which is its program.
	command := t.spec.Command
	if len(command) == 0 {
		command = []string{"/image/" + filepath.Base(program)}
	}
	for _, word := range slices.Concat(command, t.spec.Args) {
		s.Argv = append(s.Argv, content.Expand(word, variables))
	}
	for i := range t.spec.VolumeMounts {
		m := &t.spec.VolumeMounts[i]
		source, err := t.pod.volumes.Source(pod, m, variables)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errConfig, err)
		}
		s.Mounts = append(s.Mounts, container.Mount{Source: source, Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	return s, nil
}

func securityOf(c *corev1.Container) corev1.SecurityContext {
	if c.SecurityContext == nil {
		return corev1.SecurityContext{}
	}
	return *c.SecurityContext
}

func isTrue(b *bool) bool { return b != nil && *b }

// firstOf returns the first number that is set, 0 if none is.
func firstOf(numbers ...*int64) int {
	for _, n := range numbers {
		if n != nil {
			return int(*n)
		}
	}
	return 0
}

// privileges are whom a container runs as. Programs of the host have no user of their own as images may: root is meant.
func privileges(pod *corev1.Pod, c *corev1.Container) (container.Privileges, error) {
	own, all := securityOf(c), corev1.PodSecurityContext{}
	if pod.Spec.SecurityContext != nil {
		all = *pod.Spec.SecurityContext
	}
	p := container.Privileges{
		User: firstOf(own.RunAsUser, all.RunAsUser), Group: firstOf(own.RunAsGroup, all.RunAsGroup),
		NoNewPrivileges: own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation,
		Privileged:      isTrue(own.Privileged),
	}
	if own.RunAsNonRoot == nil {
		own.RunAsNonRoot = all.RunAsNonRoot
	}
	if isTrue(own.RunAsNonRoot) && p.User == 0 {
		return p, errors.New("container has runAsNonRoot and image will run as root: set runAsUser")
	}
	for _, group := range all.SupplementalGroups {
		p.Groups = append(p.Groups, int(group))
	}
	if all.FSGroup != nil {
		p.Groups = append(p.Groups, int(*all.FSGroup))
	}
	var add, drop []string
	if own.Capabilities != nil {
		for _, name := range own.Capabilities.Add {
			add = append(add, string(name))
		}
		for _, name := range own.Capabilities.Drop {
			drop = append(drop, string(name))
		}
	}
	var err error
	p.Capabilities, err = container.ChangeCapabilities(add, drop)
	return p, err
}

func hostname(pod *corev1.Pod) string {
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	return name[:min(len(name), 63)] // what the kernel takes
}

func hosts(pod *corev1.Pod, address string) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	name := hostname(pod)
	if pod.Spec.Subdomain != "" {
		name = fmt.Sprintf("%s.%s.%s.svc.%s\t%s", name, pod.Spec.Subdomain, pod.Namespace, Domain, name)
	}
	fmt.Fprintf(&b, "%s\t%s\n", address, name)
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return b.String()
}

// resolv is the pod's /etc/resolv.conf. Every policy but None means the cluster's own name server, because there is no other.
func (t *task) resolv(pod *corev1.Pod) string {
	var servers, searches, options []string
	if pod.Spec.DNSPolicy != corev1.DNSNone {
		servers = []string{t.pod.agent.Ranges.Bridge().String()}
		searches = []string{pod.Namespace + ".svc." + Domain, "svc." + Domain, Domain}
		options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		servers, searches = append(servers, c.Nameservers...), append(searches, c.Searches...)
		for _, o := range c.Options {
			option := o.Name
			if o.Value != nil {
				option += ":" + *o.Value
			}
			options = append(options, option)
		}
	}
	var b strings.Builder
	for _, server := range servers {
		b.WriteString("nameserver " + server + "\n")
	}
	if len(searches) > 0 {
		b.WriteString("search " + strings.Join(searches, " ") + "\n")
	}
	if len(options) > 0 {
		b.WriteString("options " + strings.Join(options, " ") + "\n")
	}
	return b.String()
}
