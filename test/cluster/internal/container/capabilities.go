package container

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Capabilities lists the kernel's capabilities by Kubernetes' names, that is without "CAP_", at the index that is their number.
func capabilityNames() []string {
	return []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
		"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
		"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
		"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
		"PERFMON", "BPF", "CHECKPOINT_RESTORE",
	}
}

// DefaultCapabilities are those that container runtimes grant when a pod does not say otherwise.
func DefaultCapabilities() []string {
	return []string{"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
		"NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"}
}

// ChangeCapabilities returns the default capabilities after a pod's drop and add lists, which may say ALL. As in container runtimes, what is
// added wins over what is dropped.
func ChangeCapabilities(add, drop []string) ([]string, error) {
	names := capabilityNames()
	for _, name := range slices.Concat(add, drop) {
		if name = plainName(name); name != "ALL" && !slices.Contains(names, name) {
			return nil, fmt.Errorf("capability %q is none of the kernel's", name)
		}
	}
	wanted := DefaultCapabilities()
	for _, name := range drop {
		if name = plainName(name); name == "ALL" {
			wanted = nil
		}
		wanted = slices.DeleteFunc(wanted, func(w string) bool { return w == name })
	}
	for _, name := range add {
		if name = plainName(name); name == "ALL" {
			return names, nil
		}
		if !slices.Contains(wanted, name) {
			wanted = append(wanted, name)
		}
	}
	return wanted, nil
}

func plainName(name string) string { return strings.TrimPrefix(strings.ToUpper(name), "CAP_") }

// drop gives up what p does not allow. The calling goroutine must be locked to its thread, which is the one that will execute the program:
// capabilities and users belong to threads.
//
// The bounding set is what matters. A program that is executed by root gets all of it; one of another user's gets what its file grants
// within it, which is nothing as a rule.
func (p Privileges) drop() error {
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
	}
	if !p.Privileged {
		for number, name := range capabilityNames() {
			if slices.Contains(p.Capabilities, name) {
				continue
			}
			// EINVAL: the kernel is older than the capability.
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); err != nil && err != unix.EINVAL {
				return fmt.Errorf("drop capability %s: %w", name, err)
			}
		}
		if err := dropInheritable(); err != nil {
			return err
		}
	}
	if err := unix.Setgroups(p.Groups); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := unix.Setresgid(p.Group, p.Group, p.Group); err != nil {
		return fmt.Errorf("set group %d: %w", p.Group, err)
	}
	if err := unix.Setresuid(p.User, p.User, p.User); err != nil {
		return fmt.Errorf("set user %d: %w", p.User, err)
	}
	return nil
}

// dropInheritable empties the sets that would outlive an exec besides the bounding set.
func dropInheritable() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && err != unix.EINVAL {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}
