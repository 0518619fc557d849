package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Argument of the process that tries in namespaces of its own what a cluster will need.
const tryArgument = "try"

// Tries tells whether the arguments make this process one that tries what a cluster needs.
func Tries(args []string) bool { return len(args) > 1 && args[1] == tryArgument }

// errMissing begins what Check says.
var errMissing = errors.New("a test cluster cannot run here")

// Check says everything that keeps a cluster from running on this machine, and the way out of each.
func Check() error {
	var problems []string
	if os.Geteuid() != 0 {
		problems = append(problems, "it needs root: run it with sudo, or as root in a container")
	}
	if _, err := findProgram("nft"); err != nil {
		problems = append(problems, "the program nft is missing: apt-get install nftables")
	}
	if len(problems) == 0 {
		if problem := try(); problem != "" {
			problems = append(problems, problem)
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w:\n- %s", errMissing, strings.Join(problems, "\n- "))
}

func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, folder := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// try makes namespaces, and has another process use them.
func try() string {
	cmd := exec.Command("/proc/self/exe", tryArgument)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	output, err := cmd.CombinedOutput()
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
		return fmt.Sprintf("namespaces cannot be made (%v): a container must be privileged", err)
	}
	return strings.TrimSpace(string(output))
}

// Try tries in new namespaces what a cluster needs of the kernel, and says what is missing. It returns the process's exit code.
func Try() int {
	const privileged = "a container must be privileged"
	steps := []struct {
		name string
		do   func() error
		help string
	}{
		{"bridges cannot be made", func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: named("try0")}) }, "load the kernel module bridge"},
		{"pairs of virtual interfaces cannot be made", func() error {
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: named("try1"), PeerName: "try2"})
		}, "load the kernel module veth"},
		{"nftables cannot translate addresses", tryTranslation, "load the kernel modules nf_tables and nft_chain_nat"},
		{"mounts cannot be made private", func() error { return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") }, privileged},
		{"/proc cannot be mounted", func() error { return syscall.Mount("proc", "/proc", "proc", 0, "") }, privileged},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			fmt.Printf("%s (%v): %s\n", step.name, err, step.help)
			return 1
		}
	}
	return 0
}

func named(name string) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return attrs
}

func tryTranslation() error {
	nft, err := findProgram("nft")
	if err != nil {
		return err
	}
	output, err := exec.Command(nft, "add table ip try; add chain ip try nat { type nat hook prerouting priority -100; }").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(output)))
	}
	return nil
}
