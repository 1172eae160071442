"""Chat messages in Chinese, English and both, whose words are as unevenly spread as in real ones (Zipf). One seed, one text."""

import itertools
import random
from collections.abc import Callable

_CHINESE = """
的 了 我 是 你 在 不 就 有 好 我们 都 这个 那 也 可以 吗 吧 说 一下 没有 今天 明天 现在 什么 怎么 时候 知道
大家 问题 开会 下午 上午 项目 时间 已经 看看 需要 收到 谢谢 客户 文件 发 给 一个 还是 应该 然后 但是 因为 所以
如果 觉得 可能 晚上 工作 公司 测试 上线 服务器 数据库 缓存 消息 群里 报告 会议 讨论 方案 设计 代码 接口 部署
版本 更新 用户 反馈 处理 完成 确认 北京 上海 深圳 周末 吃饭 午饭 咖啡 下班 请假 天气 下雨 地铁 航班 酒店 预算
合同 付款 发票 招聘 面试 培训 出差 新产品 市场
"""
_ENGLISH = """
the to a and i you is of it in for on that this we be have can not with are so do at but my will what just ok
if me there please thanks today tomorrow meeting deploy server release review merge branch test build error
fix update check send file call customer report deadline project design team online offline cache database
query index message group search redis kafka python weekend lunch coffee train flight hotel invoice contract
budget office product launch market feedback
"""
_SYLLABLES = """
ba co di fe gu ha jo ki lu me no pa qui ro su ta ve wi xo zen tion al er ing ly st
"""
_RARE_WORDS = 20_000
_MARKS = (",", "。", "!", " ", "?", "…", "~")


class Corpus:
    """Endless messages."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._chinese = self._vocabulary(_CHINESE.split(), self._rare_chinese)
        self._english = self._vocabulary(_ENGLISH.split(), self._rare_english)

    def message(self) -> str:
        """Two thirds Chinese, a quarter English, the rest mixed; 1 to 15 words, sometimes many more."""
        kind = self._chance.random()
        count = min(self._chance.randint(1, 15), self._chance.randint(2, 15))
        if self._chance.random() < 0.01:
            count *= 10
        if kind < 0.65:
            return self._sentence(self._pick(self._chinese, count))
        if kind < 0.9:
            words = self._pick(self._english, count)
            return " ".join([words[0].capitalize(), *words[1:]]) + self._chance.choice((".", "", "!", "?"))
        chinese, english = self._pick(self._chinese, count), self._pick(self._english, max(1, count // 4))
        for word in english:
            chinese.insert(
                self._chance.randrange(len(chinese) + 1), self._chance.choice((word, word.capitalize(), f" {word} "))
            )
        return self._sentence(chinese).strip()

    def _sentence(self, words: list[str]) -> str:
        return "".join(word + (self._chance.choice(_MARKS) if self._chance.random() < 0.15 else "") for word in words)

    def _pick(self, vocabulary: tuple[list[str], list[float]], count: int) -> list[str]:
        return self._chance.choices(vocabulary[0], cum_weights=vocabulary[1], k=count)

    def _vocabulary(self, common: list[str], rare: Callable[[], str]) -> tuple[list[str], list[float]]:
        words = list(dict.fromkeys([*common, *(rare() for _ in range(_RARE_WORDS))]))
        return words, list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(words))))

    def _rare_chinese(self) -> str:
        # The 3,000 or so characters in use are spread unevenly, too.
        count = self._chance.choice((1, 2, 2, 2, 3, 4))
        return "".join(chr(0x4E00 + int(self._chance.random() ** 2 * 3500)) for _ in range(count))

    def _rare_english(self) -> str:
        return "".join(self._chance.choices(_SYLLABLES.split(), k=self._chance.randint(2, 4)))
