package spec

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// kernelFS says where a file system of the kernel may be mounted and how.
type kernelFS struct {
	at     []string // the places; nil means judged by tmpfsPlace
	forced []string // options it always has
	data   pattern  // options of the form name=value, and flags of its own; nil means none
}

// kernelFileSystems are all the types that may be mounted. cgroup files are the host's, only seen from inside: options of
// that file system would change the host's mount, so it has none.
var kernelFileSystems = map[string]kernelFS{
	"proc": {
		at: []string{"/proc"}, forced: []string{"nosuid", "noexec", "nodev"},
		data: lazily(`^(hidepid=([0-4]|off|noaccess|invisible|ptraceable)|subset=pid|gid=[0-9]+)$`),
	},
	"sysfs":   {at: []string{"/sys"}, forced: []string{"nosuid", "noexec", "nodev", "ro"}},
	"cgroup":  {at: []string{"/sys/fs/cgroup"}, forced: []string{"nosuid", "noexec", "nodev", "ro"}},
	"cgroup2": {at: []string{"/sys/fs/cgroup"}, forced: []string{"nosuid", "noexec", "nodev", "ro"}},
	"devpts": {
		at: []string{"/dev/pts"}, forced: []string{"nosuid", "noexec", "newinstance"},
		data: lazily(`^(ptmxmode|mode)=0?[0-7]{3}$|^[ug]id=[0-9]+$|^max=[0-9]+$`),
	},
	"mqueue": {at: []string{"/dev/mqueue"}, forced: []string{"nosuid", "noexec", "nodev"}},
	"tmpfs": {
		forced: []string{"nosuid", "nodev"},
		// Sizes of 0 mean "unlimited".
		data: lazily(`^mode=[0-7]{3,5}$|^(size|nr_inodes|nr_blocks)=[1-9][0-9]*[kKmMgG]?$|^size=[1-9][0-9]?%$|^[ug]id=[0-9]+$|^inode(32|64)$`),
	},
}

// plainOptions may be set on any of them. "dev", "suid" and "exec" are not among them, nor are propagation, "remount",
// "tmpcopyup" (copies what the image has there while the runtime still sees the host) and the recursive forms.
var plainOptions = []string{
	"ro", "rw", "nosuid", "nodev", "noexec", "nosymfollow", "noatime", "nodiratime", "relatime", "strictatime",
}

// kernelMount returns the mount that takes m's place, or why there is none. m is not a bind.
func kernelMount(m specs.Mount) (specs.Mount, string) {
	fs, ok := kernelFileSystems[m.Type]
	if !ok {
		return specs.Mount{}, fmt.Sprintf("file systems of type %q are not mounted", m.Type)
	}
	if fs.at == nil {
		if reason := tmpfsPlace(m.Destination); reason != "" {
			return specs.Mount{}, reason
		}
	} else if !slices.Contains(fs.at, m.Destination) {
		return specs.Mount{}, fmt.Sprintf("%s is mounted only at %s", m.Type, fs.at[0])
	}
	forced := fs.forced
	if m.Destination == "/dev" {
		// Its device nodes are to be used. Without CAP_MKNOD the agent cannot make others.
		forced = []string{"nosuid"}
	}
	out := specs.Mount{Destination: m.Destination, Type: m.Type, Source: m.Type}
	if m.Type == "tmpfs" && m.Source == "shm" {
		out.Source = m.Source
	}
	for _, o := range m.Options {
		known := slices.Contains(plainOptions, o) || o == "newinstance" && m.Type == "devpts" || fs.data != nil && fs.data().MatchString(o)
		if !known || slices.Contains(out.Options, o) || o == "rw" && slices.Contains(forced, "ro") || o == "nodev" && m.Destination == "/dev" {
			continue
		}
		out.Options = append(out.Options, o)
	}
	for _, o := range forced {
		if !slices.Contains(out.Options, o) {
			out.Options = append(out.Options, o)
		}
	}
	return out, ""
}

// tmpfsPlace returns why a tmpfs may not be at dest, or "". Kernel places would hide what is masked there.
func tmpfsPlace(dest string) string {
	switch dest {
	case "/dev", "/dev/shm":
		return ""
	case "/":
		return "it would hide the image"
	}
	if who := reservedFor(dest); who != "" {
		return "this place is reserved"
	}
	return ""
}
