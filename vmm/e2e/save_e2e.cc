// Saving the real hull-vmm to files and restoring it in another process, with the guest of a few
// KiB (hostile_guest.c), which says the alphabet over and over. Needs KVM, of any kind, and
// HULL_BIN; see hostile_e2e.cc, whose program this is part of.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "vmm/e2e/hostile_vm.h"
#include "vmm/state/state_file.h"

namespace hull::vmm {
namespace {

using testing::HasSubstr;

constexpr size_t kSomeLetters = 8;

class SavedVm : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = vm_.missing(); !why.empty()) GTEST_SKIP() << why;
    vm_.prepare();
  }
  static size_t said(const HostileVm& vm) {
    return VmmUnderTest::contents(vm.console_.get()).size();
  }
  static void waitSaid(const HostileVm& vm, size_t letters) {
    for (int i = 0; i < 2000 && said(vm) < letters; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_GE(said(vm), letters);
  }
  void startAndSave() {
    vm_.start("mark");
    waitSaid(vm_, kSomeLetters);
    const auto answer = vm_.save(state_, memory_);
    ASSERT_TRUE(answer.contains("ok")) << answer;
  }
  // A VM of the same configuration that goes on from the files.
  static void prepareRestored(HostileVm& vm, const Fd& state, const Fd& memory) {
    ASSERT_EQ(vm.missing(), "");
    vm.prepare();
    vm.restoreFrom(state, memory);
  }
  static void expectAlphabet(const std::string& text, size_t first) {
    for (size_t i = 0; i < text.size(); ++i) {
      ASSERT_EQ(text[i], static_cast<char>('a' + (first + i) % 26)) << i << " of " << text;
    }
  }
  // What a VM that is to start from `state` says about it.
  Result refusal(const std::string& state, const std::function<void(HostileVm&)>& change = {}) {
    const Fd file = VmmUnderTest::fileWith(state);
    HostileVm vm;
    prepareRestored(vm, file, memory_);
    if (change) change(vm);
    const Result result = vm.boot("mark");
    EXPECT_EQ(result.reason, "error") << result.console;
    EXPECT_EQ(result.status, 13);
    EXPECT_EQ(result.console, "");
    return result;
  }

  HostileVm vm_;
  Fd state_ = makeMemfd("state"), memory_ = makeMemfd("memory");
};

// The guest's own count goes on, in every VM that is made of the files, and in the saved one.
TEST_F(SavedVm, GoesOnWhereItStopped) {
  startAndSave();
  EXPECT_THAT(vm_.command(R"({"command":"status"})"), HasSubstr("paused"));
  const size_t stopped_at = said(vm_);
  vm_.command(R"({"command":"resume"})");
  for (int copy = 0; copy < 2; ++copy) {
    HostileVm restored;
    prepareRestored(restored, state_, memory_);
    restored.start("mark");
    waitSaid(restored, kSomeLetters);
    restored.command(R"({"command":"stop"})");
    const Result result = restored.finish();
    EXPECT_EQ(result.reason, "terminated") << result.detail << result.log;
    expectAlphabet(result.console, stopped_at);
  }
  waitSaid(vm_, stopped_at + kSomeLetters);
  vm_.command(R"({"command":"stop"})");
  expectAlphabet(vm_.finish().console, 0);
}

TEST_F(SavedVm, RestoredOneCanBeSavedAgain) {
  startAndSave();
  size_t spoken = said(vm_);
  vm_.command(R"({"command":"stop"})");
  vm_.finish();
  HostileVm second;
  prepareRestored(second, state_, memory_);
  second.start("mark");
  waitSaid(second, kSomeLetters);
  const Fd state = makeMemfd("state"), memory = makeMemfd("memory");
  ASSERT_TRUE(second.save(state, memory).contains("ok"));
  spoken += said(second);
  second.command(R"({"command":"stop"})");
  second.finish();
  HostileVm third;
  prepareRestored(third, state, memory);
  third.start("mark");
  waitSaid(third, kSomeLetters);
  third.command(R"({"command":"stop"})");
  expectAlphabet(third.finish().console, spoken);
}

TEST_F(SavedVm, GuestIsReadyAgain) {
  vm_.start("wait");
  vm_.waitReady();
  ASSERT_TRUE(vm_.save(state_, memory_).contains("ok"));
  HostileVm restored;
  prepareRestored(restored, state_, memory_);
  restored.start("wait");
  restored.waitReady();
  for (HostileVm* vm : {&vm_, &restored}) {
    vm->command(R"({"command":"stop"})");
    EXPECT_EQ(vm->finish().reason, "terminated");
  }
}

// What is missing or wrong with a save changes nothing: the guest goes on.
TEST_F(SavedVm, FailedSaveLeavesTheVmRunning) {
  vm_.start("mark");
  waitSaid(vm_, kSomeLetters);
  EXPECT_THAT(vm_.command(R"({"command":"save"})"), HasSubstr("two descriptors"));
  const Fd nowhere = openFile("/dev/full", O_RDWR);
  EXPECT_THAT(vm_.save(nowhere, nowhere).dump(), HasSubstr("error"));
  EXPECT_THAT(vm_.save(VmmUnderTest::readOnly(state_), memory_).dump(), HasSubstr("error"));
  EXPECT_THAT(vm_.command(R"({"command":"status"})"), HasSubstr("running"));
  waitSaid(vm_, said(vm_) + kSomeLetters);
  ASSERT_TRUE(vm_.save(state_, memory_).contains("ok"));
  vm_.command(R"({"command":"stop"})");
  expectAlphabet(vm_.finish().console, 0);
}

TEST_F(SavedVm, DamagedAndForeignFilesAreRefused) {
  startAndSave();
  vm_.command(R"({"command":"stop"})");
  vm_.finish();
  const std::string file = VmmUnderTest::contents(state_.get());
  EXPECT_THAT(refusal("").detail, HasSubstr("not a saved VM"));
  EXPECT_THAT(refusal(file.substr(0, file.size() / 2)).detail, HasSubstr("it says"));
  std::string bad = file;
  bad[file.size() / 2] = static_cast<char>(bad[file.size() / 2] ^ 1);
  EXPECT_THAT(refusal(bad).detail, HasSubstr("damaged"));
  // Of another save: only the first byte of the id differs.
  bad = std::string(openState(file));
  bad[0] = static_cast<char>(bad[0] ^ 1);
  EXPECT_THAT(refusal(sealState(bad)).detail, HasSubstr("another time"));
  EXPECT_THAT(refusal(file, [](HostileVm& vm) { vm.config_.memory_mib = 64; }).detail,
              HasSubstr("bytes of memory"));
  EXPECT_THAT(refusal(file, [](HostileVm& vm) { vm.config_.vcpus = 2; }).detail,
              HasSubstr("1 vCPUs"));
  EXPECT_THAT(refusal(file, [](HostileVm& vm) { vm.config_.balloon = true; }).detail,
              HasSubstr("devices"));
}

// With a valid sum: every state, whatever it says, ends in a refusal or in a VM that can be
// stopped.
TEST_F(SavedVm, CraftedStateNeverHarmsTheVmm) {
  startAndSave();
  vm_.command(R"({"command":"stop"})");
  vm_.finish();
  const std::string body(openState(VmmUnderTest::contents(state_.get())));
  const size_t step = body.size() / 24;
  for (size_t at = 16; at < body.size(); at += step) {
    std::string bad = body;
    for (size_t i = at; i < std::min(at + 8, bad.size()); ++i) bad[i] = static_cast<char>(~bad[i]);
    const Fd file = VmmUnderTest::fileWith(sealState(bad));
    HostileVm vm;
    prepareRestored(vm, file, memory_);
    vm.start("mark");
    vm.control_.reset();  // a hull-vmm that has ended takes the socket with it
    try {
      vm.command(R"({"command":"stop"})");
    } catch (const Error&) {
      // It has ended already, saying why.
    }
    const Result result = vm.finish();
    EXPECT_THAT(result.reason, testing::AnyOf("error", "terminated", "triple-fault"))
        << at << ": status " << result.status << " " << result.log;
    EXPECT_THAT(result.detail, testing::Not(HasSubstr("jail"))) << at;
  }
}

}  // namespace
}  // namespace hull::vmm
