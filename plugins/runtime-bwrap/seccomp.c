/* SPDX-License-Identifier: Apache-2.0 */
/* A seccomp filter that keeps a sandbox from making cgroup namespaces.
 *
 * Whoever makes a user namespace has every capability in it, and in the namespaces that are made
 * together with it.  With a cgroup namespace among them the cgroup file system can be mounted,
 * writable, and its root is the cgroup that the sandbox is in: which is the caller's.  A write to
 * cgroup.kill there ends processes of the host, one to cgroup.freeze stops them, as far as the
 * owner of these files allows: for root and in a user's own session, it does.  The cgroup namespace
 * that bwrap made does not help, because nobody inside has a capability over it.
 *
 *   system call                            answer  why
 *   -------------------------------------  ------  ------------------------------------------------
 *   unshare, clone with CLONE_NEWCGROUP    EPERM   as where namespaces are forbidden
 *   setns to a type with CLONE_NEWCGROUP   EPERM   the same
 *   clone3                                 ENOSYS  its flags are in memory, where a filter cannot
 *                                                  look; C libraries then use clone
 *   everything else                        --      allowed
 *
 * What stays possible: user, mount, pid, net, ipc, uts and time namespaces, of which browsers and
 * nested sandboxes are made (one that insists on a cgroup namespace fails), and setns with type 0,
 * which takes any namespace: there is no other cgroup namespace inside to go to.  A foreign
 * architecture that the kernel could run besides those of the table is allowed everything; there
 * is none. */
#include "seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fs.h"

/* The numbers of one ABI. */
struct abi {
	uint32_t arch, nr_unshare, nr_clone, nr_clone3, nr_setns;
};

/* Every ABI that a kernel of this architecture may offer to a program, whichever moat was built
 * for.  Numbers written out, as the headers have only those of the ABI that is built for.  clone's
 * flags are its first argument in all of them (not on s390). */
#if defined __x86_64__ || defined __i386__
#define X32 0x40000000u
static const struct abi abis[] = {
	{AUDIT_ARCH_X86_64, 272, 56, 435, 308},
	{AUDIT_ARCH_X86_64, X32 | 272, X32 | 56, X32 | 435, X32 | 308},
	{AUDIT_ARCH_I386, 310, 120, 435, 346},
};
#define ABIS (sizeof abis / sizeof abis[0])
#elif (defined __aarch64__ || defined __arm__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
static const struct abi abis[] = {
	{AUDIT_ARCH_AARCH64, 97, 220, 435, 268},
	{AUDIT_ARCH_ARM, 337, 120, 435, 375},
};
#define ABIS (sizeof abis / sizeof abis[0])
#endif

#ifdef ABIS

/* The steps for one ABI, in their order.  NEXT is the first one of the next ABI. */
enum step {
	LOAD_ARCH,
	TEST_ARCH,
	LOAD_NUMBER,
	TEST_CLONE3,
	TEST_UNSHARE,
	TEST_CLONE,
	TEST_SETNS,
	LOAD_FIRST,
	SKIP_SECOND,
	LOAD_SECOND,
	TEST_FLAGS,
	NOT_THERE,
	FORBIDDEN,
	NEXT
};

/* A jump counts from the instruction after it, forward only, in eight bits. */
#define OFFSET(from, to) ((to) - (from) -1)
#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define TEST(how, value, from, yes, no)                                                            \
	BPF_JUMP(BPF_JMP | (how) | BPF_K, value, OFFSET(from, yes), OFFSET(from, no))
#define ANSWER(number) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (number))

/* Flags are below 2^32, so the low half of an argument says it all: on these architectures, the
 * half at its address. */
static void
build_abi(struct sock_filter *steps, const struct abi *abi)
{
	/* clang-format off */
	const struct sock_filter program[NEXT] = {
		[LOAD_ARCH] = LOAD(arch),
		[TEST_ARCH] = TEST(BPF_JEQ, abi->arch, TEST_ARCH, LOAD_NUMBER, NEXT),
		[LOAD_NUMBER] = LOAD(nr),
		[TEST_CLONE3] = TEST(BPF_JEQ, abi->nr_clone3, TEST_CLONE3, NOT_THERE, TEST_UNSHARE),
		[TEST_UNSHARE] = TEST(BPF_JEQ, abi->nr_unshare, TEST_UNSHARE, LOAD_FIRST, TEST_CLONE),
		[TEST_CLONE] = TEST(BPF_JEQ, abi->nr_clone, TEST_CLONE, LOAD_FIRST, TEST_SETNS),
		[TEST_SETNS] = TEST(BPF_JEQ, abi->nr_setns, TEST_SETNS, LOAD_SECOND, NEXT),
		[LOAD_FIRST] = LOAD(args[0]),
		[SKIP_SECOND] = BPF_STMT(BPF_JMP | BPF_JA, OFFSET(SKIP_SECOND, TEST_FLAGS)),
		[LOAD_SECOND] = LOAD(args[1]),
		[TEST_FLAGS] = TEST(BPF_JSET, CLONE_NEWCGROUP, TEST_FLAGS, FORBIDDEN, NEXT),
		[NOT_THERE] = ANSWER(ENOSYS),
		[FORBIDDEN] = ANSWER(EPERM),
	};
	/* clang-format on */

	memcpy(steps, program, sizeof program);
}

int
seccomp_open(const struct moat_host *host, int *ret_fd, struct moat_error *err)
{
	static const struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_filter program[ABIS * NEXT + 1];
	AUTO_CLOSE int fd = memfd_create("moat-seccomp", MFD_CLOEXEC);

	if (fd < 0)
		return moat_fail_errno(err, "memfd_create");
	for (size_t i = 0; i < ABIS; i++)
		build_abi(program + i * NEXT, &abis[i]);
	program[ABIS * NEXT] = allow;
	if (fs_write_all(fd, program, sizeof program, "the system call filter", err) < 0)
		return -1;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return moat_fail_errno(err, "the system call filter");
	*ret_fd = steal_fd(&fd);
	return 0;
}

#else

int
seccomp_open(const struct moat_host *host, int *ret_fd, struct moat_error *err)
{
	host->log("runtime-bwrap", MOAT_LOG_DEBUG,
		  "no system call filter for this architecture: cgroup namespaces can be made in "
		  "the sandbox");
	*ret_fd = -1;
	return 0;
}

#endif
