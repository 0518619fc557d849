package container

// Spec says what to run and how. The agent sends it to Main as JSON.
type Spec struct {
	// Scratch is an empty folder of the agent's, where the root is mounted. It stays empty to everybody else.
	Scratch string
	// Program is the file that the image stands for, "" for an image of the host's own programs. The container sees it as
	// /image/NAME and /NAME, and finds it by its name alone.
	Program string
	// Argv is the command. Its first word is looked up in the root as a shell would, by the PATH of Env.
	Argv []string
	Env  []string
	// Dir is the working folder, / by default. It is made if it is missing.
	Dir string
	// Hostname, Hosts and Resolv become the host name, /etc/hosts and /etc/resolv.conf.
	Hostname, Hosts, Resolv string
	Mounts                  []Mount
	// Privileges are what the program may do.
	Privileges Privileges
	// ReadOnlyRoot makes everything read-only but the Mounts that are not, /dev and /proc.
	ReadOnlyRoot bool
}

// Mount shows a file or folder of the host in the container.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// Privileges are whom a program runs as and what it may do.
type Privileges struct {
	// User and Group are numeric; Groups are the supplementary groups.
	User, Group int
	Groups      []int
	// Capabilities are the names ("NET_RAW") that the program may have if it runs as root, or may get from a file's. As with
	// containers, a program that does not run as root starts with none of them.
	Capabilities []string
	// NoNewPrivileges keeps set-user-id programs from gaining any.
	NoNewPrivileges bool
	// Privileged keeps all capabilities that the agent itself has.
	Privileged bool
}

// joinSpec is what container-exec needs to run a command in a running container.
type joinSpec struct {
	// Pid is the container's process 1 as the agent sees it.
	Pid        int
	Argv, Env  []string
	Dir        string
	Privileges Privileges
	// Terminal makes the standard input the command's controlling terminal.
	Terminal bool
}

// Names of the first argument that turn the agent's program into a container, and into a command inside one.
const (
	initArgument = "container-init"
	joinArgument = "container-exec"
)

// File descriptors that a re-executed agent inherits: its specification, and where it reports a failure.
const (
	specFD   = 3
	reportFD = 4
)
