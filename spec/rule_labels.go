package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

// labelPattern is user:role:type:level of an SELinux label for containers (container-selinux). Other types are a
// service's, or lift the confinement (spc_t, unconfined_t).
var (
	processLabel = lazily(`^[a-z_]+:[a-z_]+:(container_t|container_init_t|container_kvm_t|container_userns_t|svirt_lxc_net_t)(:[a-z0-9:,.-]+)?$`)
	mountLabel   = lazily(`^[a-z_]+:[a-z_]+:(container_file_t|container_ro_file_t|svirt_sandbox_file_t)(:[a-z0-9:,.-]+)?$`)
)

// processLabels drops the wish to be unconfined. Without a label the host's policy decides.
func processLabels(in, out *specs.Process, r *recorder) {
	switch in.ApparmorProfile {
	case "unconfined":
		r.dropped("process.apparmorProfile", in.ApparmorProfile, "confinement is not lifted on request")
	default:
		out.ApparmorProfile = in.ApparmorProfile
	}
	switch l := in.SelinuxLabel; {
	case l == "" || processLabel().MatchString(l):
		out.SelinuxLabel = l
	default:
		r.dropped("process.selinuxLabel", l, "not a label for containers")
	}
}

// ruleLabels keeps the SELinux label of the container's mounts, which becomes part of a mount option.
func ruleLabels(p *pass) error {
	if l := p.in.Linux.MountLabel; l == "" || mountLabel().MatchString(l) {
		p.out.Linux.MountLabel = l
	} else {
		p.dropped("linux.mountLabel", l, "not a label for containers' files")
	}
	return nil
}
